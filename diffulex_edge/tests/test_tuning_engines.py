"""`tune`: engines raced in processes of their own, the choice that is written, and when it is obeyed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffulex_edge import api
from diffulex_edge.cli.main import main
from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import read_json
from diffulex_edge.tests.conftest import TinyRun
from diffulex_edge.tuning.choice import CHOICE, Choice, Task, here, weights_of
from diffulex_edge.tuning.engines import Workshop
from diffulex_edge.tuning.players import EngineFailed, Player, Side
from diffulex_edge.tuning.race import Race
from diffulex_edge.tuning.tune import TuneConfig, fastest

TURNS = ("--seconds", "0.1", "--new_tokens", "8", "--thread_counts", "1", "--max_length", "64")
QUICK = (*TURNS, "--texts", "2", "--window", "32")
CHOSEN = Choice(
    engine="xnnpack",
    program="programs-0/xnnpack-32.pte",
    precision="fp32",
    threads=1,
    context="kv",
    modes=["block", "kv"],
    block_size=32,
    steps=12,
    max_length=512,
    weights="w",
    machine=here(),
)


def row(ratio: float, low: float, passes: bool = True) -> dict[str, Any]:
    return {"times_base": {"ratio": ratio, "low": low}, "passes": passes}


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ([row(1, 1), row(1.5, 1.2), row(2.0, 1.8)], 2),
        ([row(1, 1), row(1.5, 1.2), row(2.0, 1.8, passes=False)], 1),  # too much is lost
        ([row(1.5, 0.9), row(1, 1)], 1),  # perhaps no faster
        ([row(0.5, 0.4), row(1, 1)], 1),
    ],
)
def test_the_fastest_must_pass_and_be_faster_beyond_doubt(rows: list[dict[str, Any]], chosen: int) -> None:
    assert fastest(rows, base=next(i for i, each in enumerate(rows) if each["times_base"]["ratio"] == 1)) == chosen


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (Task(), ""),
        (Task(modes=("block", "kv")), ""),
        (Task(modes=("block", "full")), "no context for full"),
        (Task(block_size=16), "32 tokens, not 16"),
        (Task(longest=lambda: 512), ""),
        (Task(longest=lambda: 513), "513 tokens are more than the 512"),
        (Task(beyond="guidance"), "no guidance"),
    ],
)
def test_a_program_is_obeyed_only_where_it_can_do_the_task(task: Task, told: str) -> None:
    assert told in CHOSEN.obstacle(task)
    assert bool(told) == bool(CHOSEN.obstacle(task))
    assert replace(CHOSEN, program=None).obstacle(task) == ""  # a model can do all of it


def test_a_choice_is_of_one_machine_and_one_model(tmp_path: Path) -> None:
    assert CHOSEN.staleness("w") == ""
    assert "other weights" in CHOSEN.staleness("v")
    moved = replace(CHOSEN, machine={**here(), "processor": "abacus"})
    assert "its processor was abacus" in moved.staleness("w")
    assert Choice.read(tmp_path) is None
    CHOSEN.write(tmp_path)
    assert Choice.read(tmp_path) == CHOSEN
    written = (tmp_path / CHOICE).read_bytes()
    for i in range(0, len(written), 7):
        (tmp_path / CHOICE).write_bytes(written[:i] + bytes([written[i] ^ 1]) + written[i + 1 :])
        with pytest.raises(ArtefactError, match=CHOICE):
            Choice.read(tmp_path)


def test_weights_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = weights_of(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"12")
    assert weights_of(tmp_path) != first
    (tmp_path / "manifest.json").write_text("{}")
    assert weights_of(tmp_path) not in (first, "")


def test_a_choice_lies_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFULEX_HOME", str(tmp_path))
    assert api.tuned_folder(api.SHIPPED) == tmp_path / "tuned" / f"{api.SHIPPED}.tuned"
    (tmp_path / "run").mkdir()
    for name in (tmp_path / "run", tmp_path / "run" / "latest.pt"):
        assert api.tuned_folder(name) == tmp_path / "run.tuned"


def test_programs_that_were_not_chosen_are_removed(tmp_path: Path) -> None:
    names = ("programs-a/x-16.pte", "programs-a/x-16.pte.json", "programs-a/x-32.pte", "programs-a/tokenizer.model")
    for name in (*names, "programs-a/y/program.json", "programs-b/x-32.pte"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shop = Workshop(model=None, source=tmp_path, tokenizer=tmp_path, folder=tmp_path, context="kv", max_length=1)
    shop.tidy("programs-a/x-16.pte")
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"programs-a/x-16.pte", "programs-a/x-16.pte.json", "programs-a/tokenizer.model"}
    shop.tidy(None)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_measured_is_refused() -> None:
    for wrong in ({"engines": ("eager", "warp")}, {"engines": ("xnnpack",)}, {"block_sizes": (0,)}, {"seconds": 0.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            TuneConfig(**wrong)  # type: ignore[arg-type]


def test_an_engine_that_does_not_open_is_told_in_one_line(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"precision": "fp32", "threads": 1, "context": "memory", "block_size": 8, "steps": 2}
    with pytest.raises(EngineFailed, match="ArtefactError: .*no checkpoint here"):
        Player(Side(engine="eager", path=tmp_path, tokenizer=tmp_path, **shape))


def test_the_choice_is_written_and_obeyed(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = tmp_path / "run", tmp_path / "tune.json"
    shutil.copytree(tiny_run.run, run)
    tuning = ["tune", str(run), "--engines", "eager", "--block_sizes", "16", *QUICK, "--json", str(found)]
    assert main(tuning) == 0
    rows = read_json(found)["rows"]
    assert [each["block_size"] for each in rows] == [32, 32, 16]
    assert [each["steps"] for each in rows] == [12, 12, 6]
    assert rows[0]["loss"] == 0
    assert rows[0]["guess_agreement"] == 1
    assert all(each["turns"] >= 5 and each["tokens_per_s"] > 0 for each in rows)
    sampling = ["sample", "--ckpt", str(run), "--max_new_tokens", "16"]
    for more, told in (([], "tuned: eager, 1 thread"), (["--threads", "1"], ""), (["--untuned"], "")):
        capsys.readouterr()
        assert main([*sampling, *more]) == 0
        said = capsys.readouterr().err
        assert told in said
        assert bool(told) == ("tuned" in said)
    (run.with_name("run.tuned") / CHOICE).write_text("{}")
    assert main(sampling) == 3
    monkeypatch.setattr("diffulex_edge.machine._free_memory", lambda: 1000)
    assert main(tuning) == 4
    assert "racing 1 engines needs" in capsys.readouterr().err


@pytest.mark.export
def test_a_program_is_raced_and_obeyed(tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run.run, run)
    source, folder = api.source_of(run), api.tuned_folder(run)
    shape: dict[str, Any] = {"context": "memory", "max_length": 64}
    shop = Workshop(model=api.load(run)[0], source=source, tokenizer=source, folder=folder, **shape)
    rest: dict[str, Any] = {"precision": "fp32", "threads": 1, "context": "memory", "block_size": 32, "steps": 4}
    sides = [
        Side(engine=name, path=shop.make(name, 32), tokenizer=source, **rest)
        for name in ("eager", "xnnpack", "openvino")
    ]
    race = Race([list(range(5, 69))], seconds=0.1, new_tokens=8)
    eager, *programs = race.run(sides)
    assert race.missing == {}
    for each in programs:
        assert each.guesses.tolist() == eager.guesses.tolist()
        assert each.nats == pytest.approx(eager.nats, rel=1e-4)
        assert len(each.times) == len(eager.times) >= 5
    for side in sides[1:]:
        program = str(side.path.relative_to(folder))
        about: dict[str, Any] = {"engine": side.engine, "program": program, "weights": shop.weights, "machine": here()}
        Choice(**rest, **about, modes=["block_frozen"], max_length=None).write(folder)
        assert main(["sample", "--ckpt", str(run), "--max_new_tokens", "16", "--frozen_context"]) == 0
        assert f"tuned: {side.engine}, 1 thread" in capsys.readouterr().err
        bench = [
            "bench",
            "--ckpt",
            str(run),
            "--modes",
            "block_frozen",
            "--max_new_tokens",
            "16",
            "--runs_per_prompt",
            "1",
        ]
        assert main([*bench, "--json", str(tmp_path / "bench.json")]) == 0
        assert side.engine in read_json(tmp_path / "bench.json")["tuned"]
        assert main(["sample", "--ckpt", str(run), "--max_new_tokens", "16", "--blockwise"]) == 0
        assert "what was tuned is left out: the program has no context for block" in capsys.readouterr().err


def test_an_engine_that_crashes_drops_out_alone(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    source = api.source_of(tiny_run.run)
    rest: dict[str, Any] = {"precision": "fp32", "context": "memory", "block_size": 32, "steps": 4}
    sides = [Side(engine="eager", path=source, tokenizer=source, threads=count, **rest) for count in (1, 2)]
    write = Player.write

    def fatal(player: Player, prompt: str, tokens: int) -> tuple[float, float]:
        if player.side.threads == 2:
            player._process.kill()
        return write(player, prompt, tokens)

    monkeypatch.setattr(Player, "write", fatal)
    race = Race([list(range(5, 69))], seconds=0.1, new_tokens=8)
    (left,) = race.run(sides)
    assert left.side.threads == 1
    assert race.missing == {sides[1].name: "its process ended with code -9"}
