"""The judge: an interpolated 5-gram of Kneser and Ney over token ids. It knows nothing of diffusion, which is its use.

Chen and Goodman's modified form (1998): three discounts an order, continuation counts below the highest order, each
order interpolated with the next and the last with the uniform distribution, so that every context has a
distribution that sums to one. A document starts after an end-of-text token, and no context reaches back beyond it.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import atomic

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Level:
    """The k-grams that were seen, as sorted keys `row of the first k-1 tokens in the level below * V + last token`."""

    keys: Ints  # (n,)
    counts: (
        Ints  # (n,) how many different tokens came before; at the highest order and at a document's start, how often
    )

    def find(self, keys: Ints) -> Ints:
        """The row of each key, -1 where it was never seen."""
        rows = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return np.where(self.keys[rows] == keys, rows, -1)


class KneserNey:
    """log p(token | up to order - 1 tokens before it) in nats."""

    def __init__(self, levels: Sequence[Level], vocab_size: int, eos_id: int) -> None:
        self.levels = list(levels)
        self.vocab_size = vocab_size
        self.eos_id = eos_id
        self._weights = [self._weigh(k) for k in range(len(self.levels))]

    @classmethod
    def train(cls, ids: NDArray[np.integer], *, vocab_size: int, eos_id: int, order: int = 5) -> Self:
        """From a stream of documents, each ending with eos_id. About two seconds and 150 MB for two million tokens."""
        text = _stream(ids, vocab_size, eos_id)
        reach = _reach(text, eos_id)
        rows = text.copy()  # the row of the k-gram that ends at each position, in its level; a 1-gram's row is its id
        levels: list[Level] = []
        counts = np.zeros(0, np.int64)
        for k in range(1, order + 1):
            at = np.flatnonzero(reach >= k)  # positions with k - 1 tokens of their own document before them
            if k == 1:
                keys, counts = np.arange(vocab_size), np.bincount(text[1:], minlength=vocab_size)
            else:
                keys, one, inverse, often = np.unique(
                    rows[at - 1] * vocab_size + text[at], return_index=True, return_inverse=True, return_counts=True
                )
                different = np.bincount(rows[at[one]], minlength=len(levels[-1].keys))
                levels[-1] = Level(levels[-1].keys, np.where(different, different, levels[-1].counts))
                rows, counts = np.full(len(text), -1), often
                rows[at] = inverse
            levels.append(Level(keys, counts))
        return cls(levels, vocab_size, eos_id)

    def log_probs(self, documents: Sequence[Sequence[int]]) -> list[Floats]:
        """One array a document: log p in nats of each of its tokens given those before. Its end is not scored."""
        if not documents:
            return []
        stream = np.concatenate([np.append(np.asarray(d, np.int64), self.eos_id) for d in documents])
        nats = np.log(self._probabilities(_stream(stream, self.vocab_size, self.eos_id)))
        ends = np.cumsum([len(d) + 1 for d in documents])
        return [nats[end - len(d) - 1 : end - 1] for d, end in zip(documents, ends, strict=True)]

    def save(self, path: Path, trained_on: str) -> None:
        """Writes an .npz with a digest over all of it; `trained_on` says what the counts are of."""
        arrays = {
            f"{name}{k}": getattr(level, name) for k, level in enumerate(self.levels) for name in ("keys", "counts")
        }
        arrays["shape"] = np.array([len(self.levels), self.vocab_size, self.eos_id])
        arrays["trained_on"] = np.frombuffer(trained_on.encode(), np.uint8)
        with atomic(path) as file:
            np.savez(file, digest=np.frombuffer(_digest(arrays), np.uint8), **arrays)

    @classmethod
    def load(cls, path: Path) -> tuple[Self, str]:
        """The judge and what it was trained on. Raises ArtefactError for a file that is not what was written."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            digest = arrays.pop("digest").tobytes()
            order, vocab_size, eos_id = (int(n) for n in arrays["shape"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise ArtefactError(f"{path}: not a saved judge: {error}") from error
        if digest != _digest(arrays):
            raise ArtefactError(
                f"{path}: corrupt: its digest is not that of its contents; delete it and the judge is trained again"
            )
        levels = [Level(arrays[f"keys{k}"], arrays[f"counts{k}"]) for k in range(order)]
        return cls(levels, vocab_size, eos_id), arrays["trained_on"].tobytes().decode()

    def _weigh(self, k: int) -> tuple[Floats, Floats, Floats]:
        """For level k: each k-gram's discounted share of its context; each context's count, and what it leaves."""
        level = self.levels[k]
        contexts = max(len(self.levels[k - 1].keys), 1) if k else 1
        context = level.keys // self.vocab_size if k else np.zeros(len(level.keys), np.int64)
        discount = _discounts(level.counts)[level.counts.clip(max=3)]
        total = np.bincount(context, level.counts, contexts).astype(np.float64)
        left = np.bincount(context, discount, contexts) / total.clip(min=1)
        return (level.counts - discount) / total[context].clip(min=1), total, left

    def _probabilities(self, text: Ints) -> Floats:
        """p of text[1:], each given what came before it in its document."""
        reach = _reach(text, self.eos_id)[1:]
        p = np.full(len(text) - 1, 1 / self.vocab_size)
        before = np.zeros(len(p), np.int64)  # the row of the context, in the level below
        rows = text
        for k, level in enumerate(self.levels):
            if not len(level.keys):
                break
            share, total, left = self._weights[k]
            known = (before >= 0) & (reach > k) & (total[before] > 0)
            row = np.where(known, level.find(before * self.vocab_size + text[1:]) if k else text[1:], -1)
            seen = np.where(row >= 0, share[row], 0.0)
            p = np.where(known, seen + left[before] * p, p)
            rows = np.append(-1, row) if k else text
            before = rows[:-1]
        return p


def _stream(ids: NDArray[np.integer], vocab_size: int, eos_id: int) -> Ints:
    """The text as it is counted: an end of text, then the documents."""
    text = np.concatenate(([eos_id], np.asarray(ids, np.int64)))
    if len(text) < 2 or text.min() < 0 or text.max() >= vocab_size:
        raise UsageError(f"a judge needs token ids from 0 to {vocab_size - 1}, at least one; given {len(text) - 1}")
    return text


def _reach(text: Ints, eos_id: int) -> Ints:
    """For each position: how many tokens back to the end of the text before it, both counted; 1 for the very first."""
    at = np.arange(len(text))
    last = np.maximum.accumulate(np.where(text == eos_id, at, 0))
    return at - np.append(0, last[:-1]) + 1


def _discounts(counts: Ints) -> Floats:
    """What to take from a count of 0, 1, 2, 3 or more: Chen and Goodman's estimates, or one where data is scarce."""
    n1, n2, n3, n4 = (float((counts == n).sum()) for n in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
    if not (n1 and n2 and n3 and n4):
        return np.array([0, y, y, y])
    estimates = np.array([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return estimates if (estimates[1:] > 0).all() and (estimates <= [0, 1, 2, 3]).all() else np.array([0, y, y, y])


def _digest(arrays: dict[str, NDArray]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode() + arrays[name].tobytes())
    return digest.digest()
