"""Preparation that is stopped, killed, or out of disk at any moment: the same command ends with the same bytes."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffulex_edge.errors import Interrupted, ResourceError
from diffulex_edge.tests.text_toys import config, content, make_shelf
from diffulex_edge.tests.tree import ROOT
from diffulex_edge.text import packing, sentencepiece_tokenizer
from diffulex_edge.text import prepare as module
from diffulex_edge.text.prepare import prepare

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def prepared(shelf: Path) -> Path:
    return prepare(config(shelf, shelf / "prepared"))


@pytest.fixture
def beside(shelf: Path) -> Path:
    """A place for data beside `prepared`: meta.json says where the tokenizer lies, seen from it."""
    return shelf / f"data-{next(NUMBERS)}"


def stopped(shelf: Path, folder: Path, after: int) -> None:
    """A preparation that its user stops after so many documents."""
    with pytest.MonkeyPatch.context() as patch:
        add, seen = module._add, itertools.count(1)

        def stops(*given: object) -> None:
            if next(seen) > after:
                raise KeyboardInterrupt
            add(*given)  # type: ignore[arg-type]

        patch.setattr(module, "_add", stops)
        with pytest.raises(Interrupted, match="the same command goes on"):
            prepare(config(shelf, folder))


def test_a_stop_by_the_user_can_be_gone_on_from(
    shelf: Path, prepared: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(shelf, beside, 60)
    assert not (beside / "meta.json").exists()
    add, calls = module._add, itertools.count()
    monkeypatch.setattr(module, "_add", lambda *given: (next(calls), add(*given)))
    prepare(config(shelf, beside))
    assert next(calls) < 60, "not from the start"
    assert content(beside) == content(prepared)


def test_a_stop_while_the_tokenizer_learns_is_a_stop(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer, in C++, makes an error of its own of a Ctrl-C in the text that it reads."""

    def stops(text: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(sentencepiece_tokenizer, "normalize", stops)
    with pytest.raises(Interrupted, match="the same command goes on"):
        prepare(config(shelf, tmp_path, tokenizer=tmp_path / "new.model"))
    assert not (tmp_path / "new.model").exists()


def test_a_journal_line_cut_short_costs_that_line_only(shelf: Path, prepared: Path, beside: Path) -> None:
    journal = beside / ".partial" / "journal.jsonl"
    stopped(shelf, beside, 50)
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"n_seen": 61, "docum')
    stopped(shelf, beside, 45)
    assert journal.read_bytes().startswith(whole)
    assert len(journal.read_bytes()) > len(whole)
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())
    prepare(config(shelf, beside))
    assert content(beside) == content(prepared)


@pytest.mark.parametrize("victim", ["train.part", "val.part", "journal.jsonl"])
@pytest.mark.parametrize("left", [b"", b"{}\n", None])
def test_a_broken_start_is_started_over(
    victim: str, left: bytes | None, shelf: Path, prepared: Path, beside: Path
) -> None:
    stopped(shelf, beside, 60)
    path = beside / ".partial" / victim
    if left is None:
        path.unlink()
    else:
        path.write_bytes(left)
    prepare(config(shelf, beside))
    assert content(beside) == content(prepared)


def test_a_change_of_the_text_or_the_settings_starts_over(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, changes in (("seed", {"seed": 3}), ("fraction", {"val_fraction": 0.4})):
        with monkeypatch.context() as patch:
            patch.setattr(packing, "finish", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                prepare(config(shelf, tmp_path / name))
        prepare(config(shelf, tmp_path / name, **changes))
        assert content(tmp_path / name) == content(prepare(config(shelf, tmp_path / f"{name} anew", **changes)))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_at_any_moment_loses_nothing(
    call: str, shelf: Path, prepared: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full at the n-th call, n = 1, 2, ... until none fails; then the same command ends with the same bytes."""
    real = getattr(os, call)
    for n in range(1, 100):
        folder, calls = beside.with_name(f"{beside.name}-{n}"), iter(range(1, 10_000))

        def fails(*given: object, n: int = n, calls: object = calls) -> object:
            if next(calls) == n:  # type: ignore[call-overload]
                raise OSError(28, "No space left on device")
            return real(*given)

        monkeypatch.setattr(os, call, fails)
        try:
            prepare(config(shelf, folder))
        except ResourceError:
            monkeypatch.setattr(os, call, real)
            prepare(config(shelf, folder))
            assert content(folder) == content(prepared), n
        else:
            break
    assert n > 3


RUN = """
import sys, resource
from pathlib import Path
from diffulex_edge.errors import ResourceError
from diffulex_edge.text.prepare import PrepareConfig, prepare
source, folder, tokenizer, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    sizes = {"val_fraction": 0.2, "chunk_tokens": 6000}
    prepare(PrepareConfig(source=(source,), data_dir=Path(folder), tokenizer=Path(tokenizer), **sizes))
except ResourceError as error:
    print(error)
    sys.exit(4)
"""


def start(shelf: Path, folder: Path, source: Path | None = None, limit: int = 0) -> subprocess.Popen[str]:
    words = [
        sys.executable,
        "-c",
        RUN,
        str(source or shelf / "text.jsonl"),
        str(folder),
        str(shelf / "t.model"),
        str(limit),
    ]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_files_that_may_not_grow_stop_it_and_it_goes_on_when_they_may(
    shelf: Path, prepared: Path, beside: Path
) -> None:
    process = start(shelf, beside, limit=15_000)
    out, err = process.communicate()
    assert (process.returncode, err) == (4, "")
    assert "unchanged" in out
    assert not (beside / "train.bin").exists()
    prepare(config(shelf, beside))
    assert content(beside) == content(prepared)


@pytest.mark.parametrize("kills", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(kills: int, shelf: Path, tmp_path: Path) -> None:
    rng, source = random.Random(kills), tmp_path / "long.jsonl"
    source.write_text((shelf / "text.jsonl").read_text() * 8)
    whole = prepare(config(shelf, tmp_path / "whole", source=(str(source),)))
    folder, killed = tmp_path / "killed", 0
    for _ in range(kills):
        before = _size(folder)
        process = start(shelf, folder, source)
        while process.poll() is None and _size(folder) <= before:  # until it has got further than the one before
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= min(kills, 2)
    process = start(shelf, folder, source)
    assert process.communicate() == ("", ""), "no progress bar where there is no terminal"
    assert process.returncode == 0
    assert content(folder) == content(whole)


def _size(folder: Path) -> int:
    journal = folder / ".partial" / "journal.jsonl"
    return journal.stat().st_size if journal.exists() else 0
