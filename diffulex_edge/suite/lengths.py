"""What the rows `length-N` say together: how cost and memory grow with N, and where one side overtakes another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Row = Mapping[str, Any]
PREFIX = "length-"


def by_length(results: Mapping[str, Row], side: str, *path: str) -> dict[int, float]:
    """N -> a figure of the side, for the lengths at which it was measured."""
    found = {}
    for name, row in results.items():
        if not name.startswith(PREFIX):
            continue
        for each in row["figures"]["rows"]:
            if each["name"] == side:
                found[int(name.removeprefix(PREFIX))] = float(_at(each, path))
    return dict(sorted(found.items()))


def exponent(points: Mapping[int, float]) -> float | None:
    """a of N^a by least squares in logarithms; None of fewer than three lengths."""
    if len(points) < 3:
        return None
    n, y = np.log(list(points)), np.log(list(points.values()))
    return float(np.polyfit(n, y, 1)[0])


def crossover(challenger: Mapping[int, float], baseline: Mapping[int, float]) -> float | None:
    """The N from which on the challenger takes less, on straight lines in logarithms; None if it never does.

    The shortest length measured where it always does.
    """
    shared = [n for n in challenger if n in baseline]
    gains = [math.log(baseline[n] / challenger[n]) for n in shared]  # above 0: the challenger takes less
    if not shared or gains[-1] <= 0:
        return None
    slower = [i for i, gain in enumerate(gains) if gain <= 0]
    if not slower:
        return float(shared[0])
    i = slower[-1]
    share = -gains[i] / (gains[i + 1] - gains[i])
    return float(math.exp(math.log(shared[i]) + share * math.log(shared[i + 1] / shared[i])))


def _at(row: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        row = row[name]
    return row
