"""`--official` and `--suffix_window`: what they mean, and which flags do not go with the makers' own rule."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from diffulex_edge.cli import chat, infill, sample
from diffulex_edge.cli.blocks import BlockFlags
from diffulex_edge.cli.commands import SETTINGS
from diffulex_edge.cli.decoding import DecodingFlags
from diffulex_edge.cli.flags import PROFILES
from diffulex_edge.cli.main import main
from diffulex_edge.cli.parse import parse
from diffulex_edge.errors import UsageError
from diffulex_edge.model.llada_edge import LLaDAEdge
from diffulex_edge.runtime.official import official_plan
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.sampler import Categorical
from diffulex_edge.runtime.suffix import SuffixDropout, WholeSuffix
from diffulex_edge.tests import family_toys
from diffulex_edge.tests.test_cli_verbs import result

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    family = family_toys.FAMILIES["llada"]
    return family_toys.write_folder(tmp_path_factory.mktemp("model"), family, family_toys.hub_model(family))


def plan(*words: str) -> Plan:
    """What `sample` makes of flags, in its mode."""
    flags, denoiser = parse(sample.Flags, list(words), prog="sample"), LLaDAEdge()
    base = flags.blocks.plan(flags.decoding, denoiser, PROFILES["phone"])
    return flags.blocks.fitted(base, flags.decoding, denoiser.spec)


def test_official_takes_rule_block_and_steps_of_the_makers_and_leaves_the_draw_to_the_user() -> None:
    sampler = Categorical(temperature=0.5, top_p=0.9)
    words = ("--official", "--temperature", "0.5", "--seed", "3", "--max_new_tokens", "64", "--suffix_window", "8")
    wanted = official_plan(LLaDAEdge(), sampler=sampler, seed=3, max_new_tokens=64, suffix=SuffixDropout(window=8))
    assert plan(*words) == wanted
    assert (wanted.block_size, wanted.steps) == (32, 32)


@pytest.mark.parametrize(
    "words",
    [
        ["--steps", "4"],
        ["--reveal", "random"],
        ["--quota", "even"],
        ["--threshold", "0.5"],
        ["--confidence_stop", "0.5"],
        ["--min_decode_layers", "2"],
        ["--block_size", "16"],
        ["--blockwise"],
        ["--frozen_context"],
        ["--sub_block", "4"],
    ],
    ids=lambda words: words[0],
)
def test_a_choice_beside_official_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match="--official"):
        plan("--official", *words)


def test_a_context_beside_official_is_refused_in_a_chat() -> None:
    flags = parse(chat.Flags, ["--official", "--context", "full"], prog="chat")
    with pytest.raises(UsageError, match="--official decides what --context would"):
        flags.answer.plan(LLaDAEdge(), None, ())
    assert parse(chat.Flags, ["--official"], prog="chat").answer.plan(LLaDAEdge(), None, (7,)).stop_ids == (7,)
    assert "official" not in SETTINGS


def test_a_suffix_window_is_a_dropout_and_none_is_the_whole() -> None:
    words = parse(infill.Flags, ["a ___", "--suffix_window", "6"], prog="infill")
    assert words.decoding.plan(LLaDAEdge(), None).suffix == SuffixDropout(window=6)
    assert BlockFlags().plan(DecodingFlags(), LLaDAEdge(), None).suffix == WholeSuffix()


def test_sample_decodes_by_the_makers_rule(folder: Path, capsys: Said) -> None:
    words = ["sample", "--ckpt", str(folder), "--prompt", "ab", "--max_new_tokens", "40", "--temperature", "0"]
    said = result([*words, "--official"], capsys)
    assert said["forwards"] == 40  # a token a step
    assert main([*words, "--official", "--benchmark_runs", "1"]) == UsageError.exit_code
    assert "--benchmark_runs" in capsys.readouterr().err


def test_chat_answers_by_the_makers_rule(folder: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("ab\n"))
    said = result(["chat", "--ckpt", str(folder), "--official", "--max_new_tokens", "8"], capsys)
    assert [turn["role"] for turn in said["turns"]] == ["user", "assistant"]


def test_sample_and_bench_take_a_suffix_window(folder: Path, capsys: Said) -> None:
    few = ["--ckpt", str(folder), "--max_new_tokens", "24", "--block_size", "4", "--steps", "2"]
    said: dict[str, Any] = result(["sample", *few, "--blockwise", "--suffix_window", "2", "--temperature", "0"], capsys)
    whole = result(["sample", *few, "--blockwise", "--temperature", "0"], capsys)
    assert said["text"] != whole["text"]
    quick = ["--runs_per_prompt", "1", "--quality_documents", "1", "--prompts", "ab", "--modes", "block"]
    measured = result(["bench", *few, *quick, "--suffix_window", "2"], capsys)
    assert measured["rows"][0]["tokens_per_s"] > 0
    assert main(["sample", *few, "--blockwise", "--suffix_window", "-1"]) == UsageError.exit_code
    assert "suffix window of -1" in capsys.readouterr().err
