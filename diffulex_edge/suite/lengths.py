"""What the rows of one comparison at several lengths N say together: how cost grows, and where sides change places."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Row = Mapping[str, Any]


def at_lengths(results: Mapping[str, Row], prefix: str) -> dict[int, Row]:
    """N -> the row `prefix`N, the shortest first."""
    found = {int(name.removeprefix(prefix)): row for name, row in results.items() if name.startswith(prefix)}
    return dict(sorted(found.items()))


def sides(rows: Mapping[int, Row]) -> list[str]:
    """The names of all sides, in the order of the first row that has them."""
    return list(dict.fromkeys(each["name"] for row in rows.values() for each in row["figures"]["rows"]))


def by_length(rows: Mapping[int, Row], side: str, *path: str) -> dict[int, float]:
    """N -> a figure of the side, for the lengths at which it was measured."""
    found = {}
    for n, row in rows.items():
        for each in row["figures"]["rows"]:
            if each["name"] == side:
                found[n] = float(_at(each, path))
    return found


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
