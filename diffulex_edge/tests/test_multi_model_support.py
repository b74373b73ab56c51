"""Every verb that takes a model takes any of the open families."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffulex_edge.bench.shapes import write_byte_tokenizer
from diffulex_edge.cli.main import main
from diffulex_edge.tests import family_toys as toys


@pytest.fixture(scope="module", params=list(toys.FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family = toys.FAMILIES[request.param]
    return toys.write_folder(tmp_path_factory.mktemp("models") / request.param, family, toys.hub_model(family))


def result(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("more", [[], ["--blockwise"]])
def test_sample_continues_a_prompt(folder: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = result(capsys, "sample", "--ckpt", str(folder), "--prompt", "hello", "--max_new_tokens", "12", *more)
    assert said["text"].startswith("hello")
    assert 1 <= said["tokens"] <= 12


def test_ids_that_the_tokenizer_has_not_are_never_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, family in toys.FAMILIES.items():
        small = toys.write_folder(tmp_path / name, family, toys.hub_model(family))
        (small / "config.json").write_text(json.dumps({**family.config, "mask_token_id": 257, "eos_token_id": 256}))
        write_byte_tokenizer(small, 256, 257)  # of the 300 rows
        said = result(capsys, "sample", "--ckpt", str(small), "--prompt", "hello", "--max_new_tokens", "48")
        assert said["tokens"] > 8


def test_infill_keeps_what_was_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = result(capsys, "infill", "one ___ two ___ three", "--ckpt", str(folder), "--length", "3")
    assert said["filled"].startswith("one ")
    assert " two " in said["filled"]
    assert said["filled"].endswith(" three")


def test_bench_measures_what_the_model_can_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--max_new_tokens", "8", "--runs_per_prompt", "1", "--quality_documents", "1", "--prompts", "ab"]
    said = result(capsys, "bench", "--ckpt", str(folder), "--modes", "block", "block_frozen", *few)
    assert [row["name"] for row in said["rows"]] == ["block"]
    assert "memory" in said["skipped"][0]["reason"]
    assert said["rows"][0]["tokens_per_s"] > 0


@pytest.mark.slow
def test_eval_bounds_the_likelihood(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "dev.jsonl"
    data.write_text(json.dumps({"text": "a short text, and not much of it " * 4}) + "\n")
    said = result(capsys, "eval", "--ckpt", str(folder), "--data", str(data), "--samples", "2")
    assert said["bits_per_char"] > 0
    assert said["block_nelbo"]["block"] > 0
    assert said["block_nelbo"]["block_frozen"] is None


def test_ids_that_the_tokenizer_has_no_word_for_are_never_written(tmp_path: Path) -> None:
    from dataclasses import replace

    from diffulex_edge import Plan, load
    from diffulex_edge.runtime.text import text_plan

    family = toys.FAMILIES["dream"]
    wider = replace(family, config={**family.config, "vocab_size": toys.VOCAB + 20}, hub=toys.qwen2(toys.VOCAB + 20))
    denoiser, tokenizer = load(toys.write_folder(tmp_path, wider, toys.hub_model(wider)))
    assert denoiser.spec.vocab_size == tokenizer.vocab_size + 20
    plan = text_plan(denoiser, tokenizer, Plan(context="canvas"))
    assert set(plan.banned) >= set(range(toys.VOCAB, toys.VOCAB + 20))
