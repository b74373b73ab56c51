"""The Rust core (sedac-core/) behind the interface of kernel.py, where it is installed; else NumPy serves."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from diffulex_edge.sedac.kernel import Cascade, Floats, Kernel, Layers, NumpyKernel

INTERFACE = 1  # of sedac_core; another is an older or a newer build, and not used


@cache
def core() -> Any | None:
    """The module sedac_core; None: not installed, or not the one that belongs to this version."""
    try:
        import sedac_core
    except ImportError:
        return None
    return sedac_core if sedac_core.INTERFACE == INTERFACE else None


def best() -> type[Kernel]:
    """The Rust kernel where there is one, else NumPy's."""
    return NumpyKernel if core() is None else RustKernel


class RustKernel:
    """A Kernel in Rust: its arithmetic holds no GIL, and thresholds are moved by compare-and-exchange."""

    def __init__(self, cascade: Cascade) -> None:
        names = ("layer_idx", "target_exit_rate", "threshold", "weight", "exit_confidence")
        layers = zip(*(getattr(cascade, name).tolist() for name in names), strict=True)
        module: Any = core()
        self._core = module.Cascade(list(layers), cascade.alpha, cascade.decay, cascade.soft)

    def thresholds(self) -> Floats:
        return np.array(self._core.thresholds(), np.float32)

    def update(self, at: int, samples: Floats) -> float:
        return float(self._core.update(at, samples))

    def observe(
        self, at: int, threshold: np.float32, risk: Floats, exit_layer: Layers, confidence: Floats, ratio: Floats
    ) -> None:
        self._core.observe(at, threshold, risk, exit_layer, confidence, ratio)

    def evaluate(self, risk: Floats, exit_layer: Layers, confidence: Floats, ratio: Floats) -> None:
        self._core.evaluate(risk, exit_layer, confidence, ratio)
