"""`chat`, driven through standard input, on a run of three steps."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffulex_edge.cli import dialogue
from diffulex_edge.cli.commands import COMMANDS, SETTINGS
from diffulex_edge.cli.live import watch
from diffulex_edge.cli.main import main
from diffulex_edge.tests.conftest import TinyRun
from diffulex_edge.tests.family_toys import FAMILIES, hub_model, write_folder
from diffulex_edge.tests.hub_toys import REPO, serve
from diffulex_edge.tests.tree import ROOT

Said = pytest.CaptureFixture[str]
SHORT = ["--max_new_tokens", "12", "--steps", "2", "--threads", "1", "--temperature", "1"]


def chat(
    tiny_run: TinyRun, lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Said, *flags: str
) -> tuple[dict[str, Any], str]:
    """The transcript, and what was printed for people."""
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
    capsys.readouterr()
    assert main(["chat", "--ckpt", str(tiny_run.run), *SHORT, *flags, "--json", "-"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def contents(transcript: dict[str, Any], role: str) -> list[str]:
    return [turn["content"] for turn in transcript["turns"] if turn["role"] == role]


def test_each_line_is_a_message_and_gets_an_answer(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    transcript, said = chat(tiny_run, ["आज", "", "kal"], monkeypatch, capsys)
    assert contents(transcript, "user") == ["आज", "kal"]
    answers = contents(transcript, "assistant")
    assert len(answers) == 2
    assert all(line in said for answer in answers for line in answer.splitlines())
    assert "was not trained to chat" in said


def test_answers_alone_go_to_standard_output(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    transcript, _ = chat(tiny_run, ["आज"], monkeypatch, capsys)
    monkeypatch.setattr("sys.stdin", io.StringIO("आज"))
    assert main(["chat", "--ckpt", str(tiny_run.run), *SHORT]) == 0
    assert capsys.readouterr().out == contents(transcript, "assistant")[0] + "\n"


def test_what_was_said_before_changes_the_answer_until_it_is_cleared(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    alone, _ = chat(tiny_run, ["आज"], monkeypatch, capsys)
    after, _ = chat(tiny_run, ["kal main ghar gaya tha", "आज"], monkeypatch, capsys)
    cleared, _ = chat(tiny_run, ["kal main ghar gaya tha", "/clear", "आज"], monkeypatch, capsys)
    undone, _ = chat(tiny_run, ["kal main ghar gaya tha", "/undo", "आज"], monkeypatch, capsys)
    assert alone["turns"] == cleared["turns"] == undone["turns"]
    assert contents(after, "assistant")[1] != contents(alone, "assistant")[0]


def test_system_is_told_first_and_can_be_changed(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    by_flag, _ = chat(tiny_run, ["आज"], monkeypatch, capsys, "--system", "kahani")
    by_command, _ = chat(tiny_run, ["/system kahani", "आज"], monkeypatch, capsys)
    taken_back, _ = chat(tiny_run, ["/system", "आज"], monkeypatch, capsys, "--system", "kahani")
    without, _ = chat(tiny_run, ["आज"], monkeypatch, capsys)
    assert by_flag == by_command
    assert taken_back == without != by_flag


def test_set_changes_how_answers_are_made(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    short, said = chat(tiny_run, ["/set max_new_tokens 2", "आज"], monkeypatch, capsys)
    by_flag, _ = chat(tiny_run, ["आज"], monkeypatch, capsys, "--max_new_tokens", "2")
    assert short["turns"] == by_flag["turns"]
    assert "max_new_tokens is 2" in said
    one, _ = chat(tiny_run, ["/set seed 5", "/set temperature 1.3", "आज"], monkeypatch, capsys)
    two, _ = chat(tiny_run, ["आज"], monkeypatch, capsys, "--seed", "5", "--temperature", "1.3")
    assert one == two


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/fly", ["/fly is not a command", "/help"]),
        ("/set", ["/set KEY VALUE", "temperature"]),
        ("/set wings 2", ["/set KEY VALUE", "max_new_tokens"]),
        ("/set help x", ["/set KEY VALUE"]),
        ("/set temperature hot", ["--temperature", "hot"]),
        ("/set max_new_tokens 0", ["max_new_tokens=0"]),
        ("/set context nowhere", []),
        ("/load nowhere.json", ["nowhere.json: no such file"]),
        ("/save /proc/none/x.json", ["/proc/none"]),
        ("a </s> b", ["</s>"]),
        ("क" * 70_000, ["70,000"]),
    ],
)
def test_what_cannot_be_done_is_one_line_and_the_talk_goes_on(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: Said, line: str, words: list[str]
) -> None:
    transcript, said = chat(tiny_run, [line, "/set context memory", "आज"], monkeypatch, capsys)
    errors = [row for row in said.splitlines() if row.startswith("error: ")]
    assert len(errors) == bool(words)
    assert all(word in errors[0] for word in words)
    assert contents(transcript, "user") == ["आज"]


def test_a_setting_the_model_cannot_follow_is_told_when_it_answers(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    lines = ["/set context kv", "आज", "/set context memory", "आज"]
    transcript, said = chat(tiny_run, lines, monkeypatch, capsys)
    assert said.count("error: ") == 1
    assert contents(transcript, "user") == ["आज"]


def test_help_names_every_command_and_every_setting(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    _, said = chat(tiny_run, ["/help"], monkeypatch, capsys)
    assert all(name in said for name in (*COMMANDS, *SETTINGS))


def test_a_conversation_can_be_saved_left_and_gone_on_with(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    file = tmp_path / "my talk.json"
    whole, _ = chat(tiny_run, ["आज", "kal"], monkeypatch, capsys, "--system", "s")
    first, _ = chat(tiny_run, ["आज", f"/save {file}", "/exit", "never read"], monkeypatch, capsys, "--system", "s")
    assert contents(first, "user") == ["आज"]
    later, _ = chat(tiny_run, [f"/load {file}", "kal"], monkeypatch, capsys)
    assert later == whole


def test_ctrl_c_stops_the_answer_and_keeps_the_session(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    calls = itertools.count()

    def interrupted(events: Iterator[Any], *rest: Any) -> Any:
        if next(calls) == 1:
            next(events)
            signal.raise_signal(signal.SIGINT)
        return watch(events, *rest)

    monkeypatch.setattr(dialogue, "watch", interrupted)
    transcript, said = chat(tiny_run, ["आज", "never answered", "kal"], monkeypatch, capsys)
    assert contents(transcript, "user") == ["आज", "kal"]
    answers = contents(transcript, "assistant")
    assert said.split("chat: it goes on from what you write\n")[1] == f"{answers[0]}\nstopped\n{answers[1]}\n"


def test_a_template_of_one_s_own_is_used_and_a_hostile_one_ends_with_code_3(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    long = ("--max_new_tokens", "96")  # a few tokens may be the same whatever stands before them
    own, said = chat(tiny_run, ["आज"], monkeypatch, capsys, "--template", str(file), *long)
    plain, _ = chat(tiny_run, ["आज"], monkeypatch, capsys, "--template", "plain", *long)
    assert own["turns"] != plain["turns"]
    assert "not trained to chat" not in said
    file.write_text("{{ ''.__class__ }}")
    assert main(["chat", "--ckpt", str(tiny_run.run), *SHORT, "--template", str(file)]) == 3
    assert "own.jinja" in capsys.readouterr().err


def test_in_a_terminal_it_prompts_and_leaves_at_the_end_of_input(tiny_run: TinyRun) -> None:
    import pty

    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "diffulex_edge.cli.main", "chat", "--ckpt", str(tiny_run.run), *SHORT]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "200"}
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True) as child:
        os.close(slave)
        said = _until(master, b"> ")
        os.write(master, b"/set max_new_tokens 4\n")
        said = _until(master, b"> ")
        assert b"max_new_tokens is 4" in said
        os.write(master, "आज\n".encode())
        _until(master, b"> ")
        os.write(master, b"\x04")
        assert child.wait(120) == 0
    os.close(master)


@pytest.mark.parametrize("name", ["llada", "sdar"])
def test_a_model_of_the_hub_is_pulled_and_talked_with_by_its_own_template(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    pytest.importorskip("transformers")
    constants = pytest.importorskip("huggingface_hub").constants
    family = FAMILIES[name]
    folder = write_folder(tmp_path / "source", family, hub_model(family), shards=2)
    turn = "{{ '<|spare_256|>' ~ m.role ~ ' ' ~ m.content ~ '<|spare_257|>' }}"
    opening = "{% if add_generation_prompt %}{{ '<|spare_256|>assistant ' }}{% endif %}"
    (folder / "chat_template.jinja").write_text("{% for m in messages %}" + turn + "{% endfor %}" + opening)
    monkeypatch.setenv("DIFFULEX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n<|spare_257|>\n"))
    with serve() as hub:
        hub.files = {file.name: file.read_bytes() for file in folder.iterdir()} | {"modeling.py": b"1 / 0"}
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        assert main(["pull", REPO]) == 0
    capsys.readouterr()
    assert main(["chat", "--ckpt", REPO, *SHORT, "--block_size", "4", "--json", "-"]) == 0
    said = capsys.readouterr()
    assert contents(json.loads(said.out), "user") == ["hello", "<|spare_257|>"]
    assert "not trained to chat" not in said.err


def _until(master: int, word: bytes) -> bytes:
    said = b""
    while not said.endswith(word):
        said += os.read(master, 1024)
    return said
