"""Batches: pure in seed and index, an epoch without gaps, repeats as asked, damage noticed."""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import read_sealed_json, sha256_file, write_sealed_json
from diffulex_edge.text.batches import Batches
from diffulex_edge.text.packing import Packed, Parts, finish

EOS = 2
DOCUMENTS = [
    (7, "devanagari", "a"),
    (30, "roman", "b"),
    (1, "mixed", "a"),
    (13, "devanagari", "b"),
    (50, "devanagari", "c"),
]


def write_data(
    folder: Path, lengths: list[tuple[int, str, str]] = DOCUMENTS, dtype: str = "<u2", base: int = 100
) -> Path:
    """Training data whose tokens are all different: document d has base + 100 d + 0, 1, 2, ... and an end."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = Parts(folder / ".partial", np.dtype(dtype), {})
    parts.open()
    for d, (length, script, source) in enumerate(lengths):
        ids = [*(base + 100 * d + i for i in range(length)), EOS]
        parts.add("train", ids, Packed(len(ids), 3 * length, script, source, d + 5))
    parts.add("val", [9, EOS], Packed(2, 1, "other", "v", 0))
    parts.commit()
    parts.close()
    (folder / "words.model").write_bytes(b"words")
    sha256 = sha256_file(folder / "words.model")
    about = {"path": "words.model", "sha256": sha256, "fingerprint": "f" * 64, "mask_id": 3, "eos_id": EOS, "pad_id": 0}
    finish(parts, folder, {"vocab_size": base + 100 * len(lengths), "tokenizer": about})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def batches(data: Path, **changes: object) -> Batches:
    given: dict[str, object] = {"seq_len": 8, "batch_size": 3, "seed": 0, **changes}
    return Batches(data, "train", **given)  # type: ignore[arg-type]


def epoch_windows(made: Batches, number: int) -> list[list[int]]:
    """All windows of an epoch; needs batch_size 1."""
    indices = [i for i in range(400) if number <= made.epoch(i) < number + 1]
    return [made.batch(i)[0].tolist() for i in indices]


def test_a_batch_depends_on_seed_and_index_alone(data: Path) -> None:
    one, two = batches(data, repeats={"b": 1.5}), batches(data, repeats={"b": 1.5})
    forward = [one.batch(i) for i in range(60)]
    backward = [two.batch(i) for i in reversed(range(60))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert forward[0].shape == (3, 8)
    assert forward[0].dtype == torch.int64
    assert not torch.equal(forward[0], batches(data, repeats={"b": 1.5}, seed=1).batch(0))


def test_an_epoch_has_every_token_once_but_for_its_two_ends(data: Path) -> None:
    made = batches(data, batch_size=1)
    whole = Counter(np.fromfile(data / "train.bin", "<u2").tolist())
    for number in range(4):
        seen = Counter(token for window in epoch_windows(made, number) for token in window)
        assert not seen - whole
        assert (whole - seen).total() < 2 * made.seq_len


def test_windows_are_stretches_of_whole_documents_end_to_end(data: Path) -> None:
    for window in [window for number in range(5) for window in epoch_windows(batches(data, batch_size=1), number)]:
        for before, after in itertools.pairwise(window):
            starts = after % 100 == 0
            assert starts if before == EOS else after in (before + 1, EOS)


def test_windows_and_phases_change_from_epoch_to_epoch(data: Path) -> None:
    epochs = [epoch_windows(batches(data, batch_size=1), number) for number in range(6)]
    assert len({str(sorted(windows)) for windows in epochs}) == 6


def test_the_windows_of_a_document_come_in_no_order(tmp_path: Path) -> None:
    made = batches(write_data(tmp_path, [(90, "roman", "a")]), batch_size=1)
    epochs = [epoch_windows(made, number) for number in range(4)]
    assert all(len(windows) >= 10 and windows != sorted(windows) for windows in epochs)


def test_a_document_comes_as_often_as_asked_for(data: Path) -> None:
    made = batches(data, batch_size=1, repeats={"b": 2.5, "devanagari": 0.5, "mixed": 0})
    count: Counter[int] = Counter()
    n = 300
    index = 0
    while made.epoch(index) < n:
        count.update(token // 100 - 1 for token in made.batch(index)[0].tolist() if token != EOS)
        index += 1
    got = {d: count[d] / n / DOCUMENTS[d][0] for d in range(5)}
    # the source comes before the script: document 3 is of source b; windows lose a little at the ends of an epoch
    assert {d: got[d] for d in (0, 1, 3, 4)} == pytest.approx({0: 0.5, 1: 2.5, 3: 2.5, 4: 0.5}, rel=0.15)
    assert got[2] == 0


def test_whole_repeats_are_exact(data: Path) -> None:
    made = batches(data, batch_size=1, repeats={"a": 2, "b": 2, "c": 2})
    seen = Counter(token for window in epoch_windows(made, 1) for token in window)
    whole = Counter(np.fromfile(data / "train.bin", "<u2").tolist() * 2)
    assert not seen - whole
    assert (whole - seen).total() < 2 * made.seq_len


def test_the_counts_are_those_of_an_epoch(data: Path) -> None:
    counts = batches(data).unigram_counts()
    assert counts.shape == (600,)
    assert counts.tolist() == np.bincount(np.fromfile(data / "train.bin", "<u2"), minlength=600).tolist()
    weighted = batches(data, repeats={"roman": 2.5, "a": 0}).unigram_counts()
    assert (weighted[200], weighted[100], weighted[400], weighted[EOS]) == (2.5, 0, 1, 2.5 + 2)


def test_facts_of_the_data(data: Path) -> None:
    made, meta = batches(data), read_sealed_json(data / "meta.json")
    assert made.n_tokens == 7 + 30 + 1 + 13 + 50 + 5
    assert made.chars_per_token == 3 * 101 / 106
    assert (made.vocab_size, made.mask_id, made.tokenizer_fingerprint) == (600, 3, "f" * 64)
    assert made.sha256 == meta["splits"]["train"]["sha256"]


def test_the_tokenizer_comes_checked(tmp_path: Path) -> None:
    made = batches(write_data(tmp_path))
    assert made.tokenizer() == {"tokenizer.model": b"words"}
    (tmp_path / "words.model").write_bytes(b"sword")
    with pytest.raises(ArtefactError, match=r"words\.model: not the tokenizer"):
        made.tokenizer()
    (tmp_path / "words.model").unlink()
    with pytest.raises(ArtefactError, match=r"words\.model: no such file"):
        made.tokenizer()


def test_the_epoch_grows_with_the_index(data: Path) -> None:
    made = batches(data, batch_size=2)
    epochs = [made.epoch(i) for i in range(50)]
    assert epochs[0] == 0
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == 50
    assert epochs[-1] == pytest.approx(98 / (106 / 8), rel=0.15)


@pytest.mark.parametrize("seq_len", [105, 106])
def test_a_window_may_be_as_long_as_the_data(data: Path, seq_len: int) -> None:
    made = batches(data, seq_len=seq_len, batch_size=1)
    assert all(made.batch(i).shape == (1, seq_len) for i in range(5))
    assert made.epoch(3) == 3


def test_data_shorter_than_a_window_is_refused(data: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.bin: 106 tokens an epoch are fewer than seq_len=107"):
        batches(data, seq_len=107)
    with pytest.raises(UsageError, match=r"0 tokens an epoch"):
        batches(data, repeats={"a": 0, "b": 0, "c": 0})
    with pytest.raises(UsageError, match=r"val\.bin"):
        Batches(data, "val", seq_len=8, batch_size=1, seed=0)


def test_epochs_that_lose_every_document_are_passed_over(tmp_path: Path) -> None:
    made = batches(write_data(tmp_path, [(20, "roman", "a")]), repeats={"a": 0.5})
    assert all((made.batch(i) != 0).all() for i in range(20))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"repeats": {"klingon": 2}},
            "no source or script 'klingon' in the data; it has a, b, c, devanagari, mixed, roman",
        ),
        ({"repeats": {"a": -1}}, "a=-1"),
        ({"repeats": {"a": float("nan")}}, "a=nan"),
        ({"seq_len": 0}, "seq_len=0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_nonsense_is_refused(data: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        batches(data, **changes)
    with pytest.raises(UsageError, match="index=-1"):
        batches(data).batch(-1)
    with pytest.raises(UsageError, match="split='test'"):
        Batches(data, "test", seq_len=8, batch_size=1, seed=0)


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    made = batches(write_data(tmp_path, dtype="<u4", base=70_000))
    assert set(made.batch(0).flatten().tolist()) - {EOS} <= set(range(70_000, 70_600))
    assert read_sealed_json(tmp_path / "meta.json")["dtype"] == "uint32"


def test_every_bit_flip_and_truncation_is_found_and_named(data: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    for round_ in range(150):
        shutil.copytree(data, tmp_path / "d", dirs_exist_ok=True)
        victim = tmp_path / "d" / rng.choice(["train.bin", "meta.json"])
        whole = bytearray(victim.read_bytes())
        if round_ % 3:
            whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        else:
            del whole[rng.randrange(len(whole)) :]
        victim.write_bytes(whole)
        with pytest.raises(ArtefactError, match=victim.name):
            batches(tmp_path / "d")


def test_missing_and_foreign_files_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"meta\.json: no such file.*prepare"):
        batches(tmp_path)
    shutil.copytree(data, tmp_path / "d")
    (tmp_path / "d" / "train.bin").unlink()
    with pytest.raises(ArtefactError, match=r"train\.bin: no such file"):
        batches(tmp_path / "d")
    write_sealed_json(tmp_path / "d" / "meta.json", {"format": "another/1"})
    with pytest.raises(ArtefactError, match=r"meta\.json: format 'another/1'"):
        batches(tmp_path / "d")
