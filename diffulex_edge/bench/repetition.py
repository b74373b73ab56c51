"""Is a text alive? Entropy, repetition and variety of token ids; the axis without which no perplexity is reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

Ids = Sequence[int]


def entropy(texts: Sequence[Ids]) -> float:
    """Mean over texts of the entropy, in nats, of each text's own token frequencies; empty texts count as 0.

    A text of n tokens has at most log n: compare texts of one length.
    """
    return float(np.mean([_entropy(text) for text in texts])) if texts else float("nan")


def rep(texts: Sequence[Ids], n: int = 4) -> float:
    """Share of n-grams that stood in the same text before, over all texts. rep-n: Welleck et al., arXiv:1908.04319."""
    grams = [_ngrams(text, n) for text in texts]
    total = sum(map(len, grams))
    return 1 - sum(len(set(g)) for g in grams) / total if total else float("nan")


def distinct(texts: Sequence[Ids], n: int = 2) -> float:
    """Different n-grams over all n-grams of all texts together. distinct-n of Li et al., arXiv:1510.03055."""
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def _entropy(text: Ids) -> float:
    if not text:
        return 0.0
    p = np.array(list(Counter(text).values()), np.float64) / len(text)
    return float(-(p * np.log(p)).sum())


def _ngrams(text: Ids, n: int) -> list[tuple[int, ...]]:
    return list(zip(*(text[i:] for i in range(n)), strict=False))
