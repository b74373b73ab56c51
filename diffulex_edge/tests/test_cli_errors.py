"""Bad input gets one clear line and its exit code; nothing is written, and nothing that was there is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffulex_edge.cli.main import main
from diffulex_edge.tests.conftest import TinyRun
from diffulex_edge.tests.tree import ROOT
from diffulex_edge.text.tokenizer import train_tokenizer

Said = pytest.CaptureFixture[str]


def refused(argv: list[str], capsys: Said, code: int, *said: str) -> None:
    """The command ends with `code` and exactly one line on standard error, which holds each of the words."""
    capsys.readouterr()
    assert main(argv) == code
    line = capsys.readouterr().err
    assert line.startswith("error: "), line
    assert line.count("\n") == 1, line
    assert all(word in line for word in said), line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--steps", "0"], "steps"),
        (["--block_size", "0", "--blockwise"], "block_size"),
        (["--block_size", "1000000", "--blockwise"], "block_size"),
        (["--max_new_tokens", "0"], "max_new_tokens"),
        (["--max_new_tokens", "-5"], "max_new_tokens"),
        (["--temperature", "nan"], "temperature"),
        (["--top_p", "0"], "top_p"),
        (["--confidence_stop", "1.5"], "threshold=1.5"),
        (["--cfg_scale", "-1"], "guidance scale of -1.0"),
        (["--min_decode_layers", "99"], "99"),
        (["--threads", "0"], "threads"),
        (["--threads", "100000"], "threads=100000"),
        (["--seed", "99999999999999999999999"], "seed=99999999999999999999999"),
        (["--model", "backup"], "--model backup"),
        (["--nope"], "--nope"),
        (["--edge_profile", "watch"], "watch"),
        (["--prompt", ""], "empty"),
        (["--prompt", "[MASK]"], "[MASK]"),
        (["--prompt", "a</s>"], "</s>"),
        (["--prompt", "क" * 350_000], "350,000"),
        (["--prompt", "a\udc80"], "UTF-8"),
    ],
)
def test_sample_refuses(tiny_run: TinyRun, capsys: Said, flags: list[str], said: str) -> None:
    refused(["sample", "--ckpt", str(tiny_run.run), "--prompt", "आज", *flags], capsys, 2, said)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["no gap here"], "___"),
        ([""], "empty"),
        (["a ___", "--length", "0"], "length"),
        (["a ___", "--lengths", "1", "2"], "length"),
        (["a ___", "--lengths", "1", "--length", "2"], "one of the two"),
        (["a ___", "--blank", ""], "blank is empty"),
        (["a ___ " * 1000], "1,000 blanks"),
    ],
)
def test_infill_refuses(tiny_run: TinyRun, capsys: Said, flags: list[str], said: str) -> None:
    refused(["infill", *flags, "--ckpt", str(tiny_run.run)], capsys, 2, said)


def test_more_than_fits_into_memory_is_refused_before_it_is_tried(tiny_run: TinyRun, capsys: Said) -> None:
    for mode in ([], ["--blockwise", "--frozen_context"]):
        flags = ["--ckpt", str(tiny_run.run), "--prompt", "a", "--max_new_tokens", "1000000000000", *mode]
        refused(["sample", *flags], capsys, 4, "memory", "GB are free")
    size = ["--d_model", "500000", "--data_dir", str(tiny_run.data), "--output_dir", str(tiny_run.run / "big")]
    refused(["train", "--recipe", "demo", *size], capsys, 4, "memory", "GB are free")


def test_prepare_refuses_missing_and_empty_data(tmp_path: Path, capsys: Said) -> None:
    to = ["--data_dir", str(tmp_path / "data"), "--tokenizer", str(tmp_path / "t.model")]
    (tmp_path / "empty.txt").write_text("")
    main(["prepare", "--source", str(tmp_path / "none.txt"), *to])
    assert "none.txt" in capsys.readouterr().err
    refused(["prepare", "--source", str(tmp_path / "empty.txt"), *to], capsys, 2)
    assert not (tmp_path / "data" / "meta.json").exists()


def test_train_refuses_data_that_is_not_there(tmp_path: Path, capsys: Said) -> None:
    flags = ["--data_dir", str(tmp_path / "none"), "--output_dir", str(tmp_path / "run")]
    refused(["train", *flags], capsys, 3, "none")
    assert not (tmp_path / "run").exists()


def test_train_refuses_flags_without_sense(tiny_run: TinyRun, tmp_path: Path, capsys: Said) -> None:
    base = ["train", "--data_dir", str(tiny_run.data), "--output_dir", str(tmp_path / "run")]
    for flags, said in (
        (["--seq_len", "0"], "seq_len"),
        (["--recipe", "cake"], "cake"),
        (["--d_model", "0"], "d_model"),
    ):
        refused([*base, *flags], capsys, 2, said)
    assert not (tmp_path / "run").exists()


def test_a_missing_checkpoint_and_a_run_without_one_are_bad_artefacts(tmp_path: Path, capsys: Said) -> None:
    refused(["sample", "--ckpt", str(tmp_path / "no" / "run"), "--prompt", "a"], capsys, 3, "run")
    refused(["sample", "--ckpt", str(tmp_path), "--prompt", "a"], capsys, 3, str(tmp_path))
    refused(["sample", "--ckpt", "no-such-model", "--prompt", "a"], capsys, 2, "no-such-model")


def test_a_flipped_bit_in_a_checkpoint_is_found_and_named(tiny_run: TinyRun, tmp_path: Path, capsys: Said) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run.run, run)
    [file] = run.glob("step-*/model.safetensors")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    refused(["sample", "--ckpt", str(run), "--prompt", "a"], capsys, 3, "model.safetensors")


def test_a_tokenizer_of_another_vocabulary_is_refused(tiny_run: TinyRun, tmp_path: Path, capsys: Said) -> None:
    other = tmp_path / "other.model"
    train_tokenizer(["नदी के किनारे एक पेड़ है। " * 20], other, vocab_size=512)
    flags = ["--ckpt", str(tiny_run.run), "--tokenizer", str(other), "--prompt", "a"]
    refused(["sample", *flags], capsys, 3, "other.model", "vocabulary")


def test_eval_refuses_missing_and_empty_documents(tiny_run: TinyRun, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"nothing": 1}\n')
    base = ["eval", "--ckpt", str(tiny_run.run), "--data"]
    assert main([*base, str(tmp_path / "none.jsonl")]) in (2, 3)
    assert "none.jsonl" in capsys.readouterr().err
    refused([*base, str(tmp_path / "empty.jsonl")], capsys, 2, "empty.jsonl")
    assert main([*base, str(tmp_path / "bad.jsonl")]) in (2, 3)
    assert "bad.jsonl:2" in capsys.readouterr().err


@pytest.mark.slow
def test_invalid_bytes_on_standard_input_are_refused() -> None:
    command = [sys.executable, "-m", "diffulex_edge.cli.main", "sample", "--prompt", "-"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, input=b"\xff\xfe", capture_output=True, env=env, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: standard input is not valid UTF-8")
    assert done.stderr.count(b"\n") == 1
