"""Estimates with their errors. Numbers in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BITS = 1 / math.log(2)  # in a nat


@dataclass(frozen=True)
class Estimate:
    value: float
    stderr: float  # nan where there was one observation only


@dataclass(frozen=True)
class Interval:
    """A ratio and its 95 % percentile interval."""

    ratio: float
    low: float
    high: float


def ratio(amounts: Floats, sizes: Floats) -> Estimate:
    """sum(amounts) / sum(sizes) over clusters (n,), with the standard error of a ratio of means (Cochran 1977, 6.4).

    A cluster is what was drawn as one: a document, whose tokens are not independent of each other.
    """
    n, value = len(amounts), float(amounts.sum() / sizes.sum())
    if n < 2:
        return Estimate(value, float("nan"))
    spread = ((amounts - value * sizes) ** 2).sum() * n / (n - 1)
    return Estimate(value, float(np.sqrt(spread) / sizes.sum()))


def paired_bootstrap(a: Floats, b: Floats, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """median(a) / median(b) for runs made in pairs (n,): whole pairs are drawn again, so what slowed both cancels."""
    rows = np.random.default_rng(seed).integers(len(a), size=(resamples, len(a)))
    with np.errstate(divide="ignore", invalid="ignore"):  # a baseline that writes nothing has no ratio
        ratios = np.append(np.median(a), np.median(a[rows], axis=1)) / np.append(
            np.median(b), np.median(b[rows], axis=1)
        )
    low, high = np.quantile(ratios[1:], [0.025, 0.975])
    return Interval(float(ratios[0]), float(low), float(high))
