"""Training batches: a pure function of seed and index, so that a run can go on at any step.

An epoch takes the documents in a random order, each as often as `repeats` says, end to end, from a random phase on,
in windows of `seq_len`, in a random order. Windows do not stop at documents: for little text in long documents plain
concatenation loses least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import read_sealed_json, sha256_file
from diffulex_edge.text.packing import FORMAT, SPLITS
from diffulex_edge.text.tokenizer import tokenizer_file


@dataclass(frozen=True, eq=False)
class Epoch:
    """The documents of an epoch in their order, repeats included, and the windows cut from them."""

    documents: NDArray[np.int64]  # (n,) which document stands at each place
    ends: NDArray[np.int64]  # (n,) where each ends in the epoch's text
    phase: int  # where the first window begins
    windows: NDArray[np.int64]  # (W,) their order


class Batches:
    """Windows of a split's tokens, (B, T) int64.

    repeats: how often a document is taken an epoch, by its source or else its script; 1 where neither is named. A
    fraction is a chance. Every byte of the data is checked before it is used: ArtefactError names the file that is
    missing or was changed.
    """

    def __init__(
        self,
        data_dir: Path | str,
        split: str,
        *,
        seq_len: int,
        batch_size: int,
        seed: int,
        repeats: Mapping[str, float] | None = None,
    ) -> None:
        self.data_dir, self.split, self.seq_len, self.batch_size, self.seed = (
            Path(data_dir),
            split,
            seq_len,
            batch_size,
            seed,
        )
        if split not in SPLITS or seq_len < 1 or batch_size < 1:
            raise UsageError(f"{split=} must be one of {', '.join(SPLITS)}, {seq_len=} and {batch_size=} at least 1")
        self._meta = read_meta(self.data_dir)
        self._about: dict[str, Any] = self._meta["splits"][split]
        self._tokens = _open_tokens(self.data_dir, self._meta, split)
        documents = self._about["documents"]
        self._ends = np.array([document["end"] for document in documents], np.int64)
        self._starts = np.concatenate([np.zeros(1, np.int64), self._ends])[:-1]
        self._repeats = _weights(documents, repeats or {})
        expected = float(self._repeats @ (self._ends - self._starts))  # tokens an epoch
        if expected < seq_len:
            raise UsageError(
                f"{self.data_dir / self._about['file']}: {expected:,.0f} tokens an epoch are fewer than {seq_len=}; "
                "take more text or a smaller seq_len"
            )
        self._plans: dict[int, Epoch] = {}  # the last two
        self._first_windows = [0]  # of each epoch, counted from the start of the run

    @property
    def n_tokens(self) -> int:
        return int(self._about["n_tokens"])

    @property
    def sha256(self) -> str:
        return str(self._about["sha256"])

    @property
    def vocab_size(self) -> int:
        return int(self._meta["vocab_size"])

    @property
    def mask_id(self) -> int:
        return int(self._meta["tokenizer"]["mask_id"])

    @property
    def tokenizer_fingerprint(self) -> str:
        return str(self._meta["tokenizer"]["fingerprint"])

    def tokenizer(self) -> dict[str, bytes]:
        """The tokenizer's files, checked, by the names that they have in a folder of their own."""
        about = self._meta["tokenizer"]
        path = tokenizer_file(self.data_dir / about["path"])
        if sha256_file(path) != about["sha256"]:
            raise ArtefactError(f"{path}: not the tokenizer that {self.data_dir} was made with: its sha256 is another")
        names = path.with_name("tokenizer_config.json")  # says which tokens of a tokenizer.json mask, end and pad
        beside = {names.name: names.read_bytes()} if path.suffix == ".json" and names.exists() else {}
        return {f"tokenizer{path.suffix}": path.read_bytes(), **beside}

    @property
    def chars_per_token(self) -> float:
        """NFC code points a token, the end-of-text tokens among the tokens."""
        return float(self._about["n_chars"] / self._about["n_tokens"])

    def unigram_counts(self) -> Tensor:
        """How often each id is expected in an epoch, repeats included: (V,) float64."""
        counts = np.zeros(self.vocab_size)
        for weight in np.unique(self._repeats):
            for i in np.flatnonzero(self._repeats == weight):
                ids = self._tokens[self._starts[i] : self._ends[i]]
                np.add.at(counts, ids, weight)
        return torch.from_numpy(counts)

    def batch(self, index: int) -> Tensor:
        """Batch number `index` of the run, (B, T): always the same for the same seed and data."""
        if index < 0:
            raise UsageError(f"batch {index=} must not be negative")
        rows = np.empty((self.batch_size, self.seq_len), np.int64)
        for row in range(self.batch_size):  # a row's pieces come from documents of their own
            number, window = self._locate(index * self.batch_size + row)
            epoch = self._plan(number)
            self._read(epoch, epoch.phase + int(epoch.windows[window]) * self.seq_len, rows[row])
        return torch.from_numpy(rows)

    def epoch(self, index: int) -> float:
        """How many epochs have gone by before batch `index`."""
        number, window = self._locate(index * self.batch_size)
        return number + window / len(self._plan(number).windows)

    def _locate(self, window: int) -> tuple[int, int]:
        """From a window counted from the start of the run: its epoch, and its number there."""
        while window >= self._first_windows[-1]:
            self._first_windows.append(self._first_windows[-1] + self._length(len(self._first_windows) - 1))
        number = int(np.searchsorted(self._first_windows, window, side="right")) - 1
        return number, window - self._first_windows[number]

    def _length(self, number: int) -> int:
        return len(self._plan(number).windows)

    def _plan(self, number: int) -> Epoch:
        if number not in self._plans:
            self._plans = {
                **dict(list(self._plans.items())[-1:]),
                number: self._shuffle(number),
            }  # a batch may span two
        return self._plans[number]

    def _shuffle(self, number: int) -> Epoch:
        rng = np.random.default_rng([self.seed, number])
        whole = np.floor(self._repeats)
        times = (whole + (rng.random(len(whole)) < self._repeats - whole)).astype(np.int64)
        documents = rng.permutation(np.repeat(np.arange(len(times)), times))
        ends = np.cumsum((self._ends - self._starts)[documents])
        spare = (int(ends[-1]) if len(ends) else 0) - self.seq_len
        if spare < 0:  # fractions under 1 may leave out so much that no window is left: such an epoch is passed over
            return Epoch(documents, ends, 0, np.zeros(0, np.int64))
        phase = int(rng.integers(min(self.seq_len, spare + 1)))
        return Epoch(documents, ends, phase, rng.permutation((int(ends[-1]) - phase) // self.seq_len))

    def _read(self, epoch: Epoch, start: int, out: NDArray[np.int64]) -> None:
        """Copies the epoch's text from `start` on into a row (T,)."""
        done = 0
        place = int(np.searchsorted(epoch.ends, start, side="right"))
        while done < len(out):
            left = int(epoch.ends[place]) - start - done  # tokens of this document from here to its end
            end = self._ends[epoch.documents[place]]
            taken = min(left, len(out) - done)
            out[done : done + taken] = self._tokens[end - left : end - left + taken]
            done += taken
            place += 1


def read_meta(data_dir: Path) -> dict[str, Any]:
    """meta.json of prepared data, whole and of this format."""
    path = data_dir / "meta.json"
    if not path.exists():
        raise ArtefactError(f"{path}: no such file; `diffulex-edge prepare` makes it")
    meta = read_sealed_json(path)
    if meta.get("format") != FORMAT:
        raise ArtefactError(f"{path}: format {meta.get('format')!r} is not {FORMAT!r}")
    return meta


def _open_tokens(data_dir: Path, meta: dict[str, Any], split: str) -> NDArray[Any]:
    about, dtype = meta["splits"][split], np.dtype(meta["dtype"]).newbyteorder("<")
    path = data_dir / about["file"]
    if sha256_file(path) != about["sha256"]:
        raise ArtefactError(
            f"{path}: its sha256 is not the one in meta.json: {path.stat().st_size:,} bytes that were cut or changed"
        )
    return np.memmap(path, dtype, mode="r") if about["n_tokens"] else np.zeros(0, dtype)


def _weights(documents: list[dict[str, Any]], repeats: Mapping[str, float]) -> NDArray[np.float64]:
    known = {name for document in documents for name in (document["source"], document["script"])}
    for name, weight in repeats.items():
        if not 0 <= weight < float("inf"):
            raise UsageError(f"repeats: {name}={weight} must be a number of times, 0 or more")
    unknown = sorted(set(repeats) - known - {"devanagari", "roman", "mixed", "other"})
    if unknown:
        raise UsageError(f"repeats: no source or script {unknown[0]!r} in the data; it has {', '.join(sorted(known))}")
    weights = [repeats.get(d["source"], repeats.get(d["script"], 1.0)) for d in documents]
    return np.array(weights, np.float64)
