"""Writes sedac.json: risks at and around the boundaries of the seed's cascade, and what its formula makes of them.

Operation by operation in float32, token by token, written out here once more: it shares no line with the kernels.
`python diffulex_edge/tests/golden/make_sedac.py`; floats as their bits.
"""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

F = np.float32
LAYERS = ((7, F(0.2), F(0.8), F(0.3)), (14, F(0.5), F(1.0), F(0.4)), (21, F(0.8), F(1.2), F(0.3)))
EDGES = (0.0, 0.1, 0.26666668, 0.42500001, 0.8, 1.0, 1.2, 3.0)


def decide(risks: tuple[Any, ...]) -> tuple[int, np.float32, float]:
    """The exit's layer or -1, C and the ratio."""
    total = F(0)
    for risk, (layer, rate, threshold, weight) in zip(risks, LAYERS, strict=True):
        conf = F(F(threshold - risk) / threshold)
        conf = min(max(conf, F(0)), F(1))
        total = F(F(F(0.9) * total) + F(weight * conf))
        if total >= rate:
            return layer, total, 0.5 * math.tanh(2 * float(total) - 1) + 0.5
    return -1, total, 0.0


def main() -> None:
    """The file beside this one."""
    around = [F(x) for edge in EDGES for x in (np.nextafter(F(edge), F(-9)), F(edge), np.nextafter(F(edge), F(9)))]
    rows = [*product(around[::2], around[1::3], around[::3]), *np.random.default_rng(0).random((500, 3), F) * F(1.5)]
    found = [decide(tuple(F(x) for x in row)) for row in rows]
    bits = {
        "risk": np.array(rows, F).reshape(-1),
        "confidence": np.array([c for _, c, _ in found], F),
        "ratio": np.array([r for _, _, r in found], F),
    }
    golden: dict[str, list[int]] = {name: values.view(np.uint32).tolist() for name, values in bits.items()}
    golden["exit_layer"] = [layer for layer, _, _ in found]
    Path(__file__).with_name("sedac.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
