"""The C++ runner beside Python: the same tokens for the same pack, and the same refusals."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from diffulex_edge.export.pack import PROGRAM
from diffulex_edge.model import checkpoint
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.plan import plan_for
from diffulex_edge.runtime.pte import PteDenoiser
from diffulex_edge.runtime.reveal import RevealAbove
from diffulex_edge.runtime.text import prompt_ids, text_plan
from diffulex_edge.tests import pack_toys
from diffulex_edge.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.native
RUNNER = Path(os.environ.get("DIFFULEX_RUNNER", Path(__file__).parents[2] / "build/runner/diffulex-runner"))
STEMS = (
    "मैं कल",
    "एक समय की बात है",
    "kal main bazaar",
    "यह file open",
    "\u2581 odd \r\n text",
    "क़लम e\u0301 \x07",
    "<|mask|> [MASK]",
    "",
)
PROMPTS = [f"{stem}{' शब्द word'[: i % 11]}" for i in range(8) for stem in STEMS][:50]


def run(folder: Path, prompt: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [str(RUNNER), str(folder), "--prompt", "-", *flags]
    return subprocess.run(command, input=prompt, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", pack_toys.MODELS)
def test_the_tokens_are_those_of_python(name: str) -> None:
    folder = pack_toys.pack(name)
    denoiser, words = PteDenoiser(folder / PROGRAM, threads=1), load_tokenizer(folder)
    for i, prompt in enumerate(PROMPTS):
        dual = i % 3 == 2 and "dual" in denoiser.kinds
        plan = text_plan(denoiser, words, plan_for(denoiser.spec, steps=4, max_new_tokens=5 + i % 20))
        plan = replace(plan, reveal=RevealAbove(0.01)) if i % 2 else plan
        plan = replace(plan, context="dual") if dual else plan
        ours = finish(decode(denoiser, [prompt_ids(words, prompt)], plan)).tokens[0]
        flags = ["--max_new_tokens", str(5 + i % 20), "--threshold", "0.01" if i % 2 else "2", *["--dual"][:dual]]
        done = run(folder, prompt, "--ids", *flags)
        assert done.returncode == 0, done.stderr
        assert [int(token) for token in done.stdout.split()] == ours, prompt


def test_a_canvas_is_written_to_its_end() -> None:
    folder = pack_toys.pack("canvas")
    denoiser, words = PteDenoiser(folder / PROGRAM, threads=1), load_tokenizer(folder)
    for room in (40, 96):  # a bucket, and the whole; the last block is shorter than the program's
        ids = prompt_ids(words, "मैं कल बाज़ार गया")
        plan = text_plan(denoiser, words, plan_for(denoiser.spec, steps=4, max_new_tokens=room - len(ids)))
        ours = finish(decode(denoiser, [ids], plan)).tokens[0]
        assert (room - len(ids)) % 8
        done = run(folder, "मैं कल बाज़ार गया", "--ids", "--max_new_tokens", str(room - len(ids)))
        assert [int(token) for token in done.stdout.split()] == ours


@pytest.mark.parametrize("name", ["memory", "json"])
def test_text_is_streamed_whole_and_figures_are_told(name: str) -> None:
    folder = pack_toys.pack(name)
    done = run(folder, "मैं कल  ", "--max_new_tokens", "20", "--stats", "json")
    told = json.loads(done.stderr)
    assert done.stdout.startswith("मैं कल") and told["tokens"] <= 20 and told["forwards"] >= told["commits"]
    assert 0 < told["load_ms"] <= told["first_text_ms"] and told["peak_memory_bytes"] > 1e6
    words = load_tokenizer(folder)
    ids = [int(token) for token in run(folder, "मैं कल", "--max_new_tokens", "20", "--ids").stdout.split()]
    assert done.stdout.rstrip("\n") == ("मैं कल" + words.decode(ids)).rstrip("\n")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--max_new_tokens", "-1"], "not a number of at least 0"),
        (["--threshold", "x"], "not a number"),
        (["--stats", "xml"], "only json"),
        (["--nonsense"], "is not a flag"),
        (["--max_new_tokens"], "needs a value"),
    ],
)
def test_nonsense_is_refused_with_usage(flags: list[str], said: str) -> None:
    done = run(pack_toys.pack("memory"), "x", *flags)
    assert done.returncode == 2 and said in done.stderr and "usage:" in done.stderr


def test_what_a_pack_cannot_do_is_refused() -> None:
    done = run(pack_toys.pack("kv"), "x", "--dual")
    assert done.returncode == 2 and "only a canvas is read so, and this pack's context is kv" in done.stderr
    done = run(pack_toys.pack("kv"), "x", "--max_new_tokens", "500")
    assert done.returncode == 2 and "more than the 96 that the program takes" in done.stderr


def test_every_damaged_file_is_refused(tmp_path: Path) -> None:
    folder, chance = tmp_path / "pack", random.Random(0)
    shutil.copytree(pack_toys.pack("memory"), folder)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for _ in range(12):
            at, cut = chance.randrange(8 * len(whole)), chance.randrange(len(whole))
            for data in (bytes([*whole[: at // 8], whole[at // 8] ^ 1 << at % 8, *whole[at // 8 + 1 :]]), whole[:cut]):
                path.write_bytes(data)
                done = run(folder, "x", "--max_new_tokens", "1")
                assert done.returncode == 3 and done.stderr.count("\n") == 1, (path.name, at, cut, done.stderr)
        path.write_bytes(whole)
    assert run(folder, "x", "--max_new_tokens", "1").returncode == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("runner.json", "diffulex-edge-pack/1", "diffulex-edge-pack/9", "diffulex-edge-pack/9"),
        ("runner.json", '"denoise"', '"dense"', "no method denoise"),
        ("runner.json", '"logits": {', '"lattice": {', "has no method lattice"),
        ("runner.json", '"sentencepiece"', '"abacus"', "abacus"),
    ],
)
def test_a_pack_of_another_kind_is_refused(tmp_path: Path, name: str, old: str, new: str, said: str) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(pack_toys.pack("memory"), folder)
    files = {
        path.name: checkpoint.content(path.read_bytes()) for path in folder.iterdir() if path.name != "manifest.json"
    }
    text = (folder / name).read_text()
    assert old in text
    checkpoint.write(folder, {**files, name: checkpoint.content(text.replace(old, new).encode())})
    done = run(folder, "x")
    assert done.returncode == 3 and said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "file", "other", "said"),
    [
        ("memory", "tokenizer.model", b"no model at all", "not a SentencePiece model"),
        ("json", "tokenizer.json", b"{}", "not a tokenizer.json"),
        ("json", "runner.json", b'"controls": [\n   1,', "other control tokens"),
    ],
)
def test_another_tokenizer_is_refused(tmp_path: Path, name: str, file: str, other: bytes, said: str) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(pack_toys.pack(name), folder)
    files = {
        path.name: checkpoint.content(path.read_bytes()) for path in folder.iterdir() if path.name != "manifest.json"
    }
    old = (folder / file).read_bytes()
    changed = old.replace(other, other.replace(b"1", b"999")) if other in old else other
    checkpoint.write(folder, {**files, file: checkpoint.content(changed)})
    done = run(folder, "x")
    assert done.returncode == 3 and said in done.stderr and done.stderr.count("\n") == 1
