"""The cascade's arithmetic in NumPy: the reference that the other kernels are compared with.

A kernel works on arrays that the caller owns, and keeps the thresholds. Its order of operations is controller.py's.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from diffulex_edge.sedac.decision import NO_EXIT

Floats = NDArray[np.float32]
Layers = NDArray[np.int32]
LEAST_THRESHOLD = np.float32(1e-6)  # a threshold divides; risks that are all 0 would track it to 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Cascade:
    """What a kernel needs to know: numbers in float32 for K checkpoints, in the order of the model's layers."""

    layer_idx: Layers  # (K,)
    target_exit_rate: Floats  # (K,)
    threshold: Floats  # (K,), at the start
    weight: Floats  # (K,)
    exit_confidence: Floats  # (K,)
    alpha: np.float32
    decay: np.float32
    soft: bool


class Kernel(Protocol):
    """What computes; n tokens, K checkpoints. `at` counts checkpoints; outputs are written in place."""

    def thresholds(self) -> Floats: ...  # (K,), a copy
    def update(self, at: int, samples: Floats) -> float: ...
    def observe(
        self, at: int, threshold: np.float32, risk: Floats, exit_layer: Layers, confidence: Floats, ratio: Floats
    ) -> None: ...  # four arrays (n,)
    def evaluate(self, risk: Floats, exit_layer: Layers, confidence: Floats, ratio: Floats) -> None: ...  # (n, <= K)


class NumpyKernel:
    """A Kernel of whole-array operations. Updates of thresholds from several threads wait for each other."""

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self._thresholds = cascade.threshold.copy()
        self._lock = threading.Lock()

    def thresholds(self) -> Floats:
        with self._lock:
            return self._thresholds.copy()

    def update(self, at: int, samples: Floats) -> float:
        c = self.cascade
        with self._lock:
            old = self._thresholds[at]
            share = np.float32(np.count_nonzero(samples < old)) / np.float32(len(samples))
            new = max(old + c.alpha * (c.target_exit_rate[at] - share), LEAST_THRESHOLD)
            self._thresholds[at] = new
        return float(new)

    def observe(
        self, at: int, threshold: np.float32, risk: Floats, exit_layer: Layers, confidence: Floats, ratio: Floats
    ) -> None:
        c = self.cascade
        with np.errstate(over="ignore", invalid="ignore"):
            conf = (threshold - risk) / threshold
            conf = np.minimum(np.where(conf > 0, conf, np.float32(0)), np.float32(1))
        alive = exit_layer == NO_EXIT
        np.copyto(confidence, c.decay * confidence + c.weight[at] * conf, where=alive)
        exits = alive & (confidence >= c.exit_confidence[at])
        exit_layer[exits] = c.layer_idx[at]
        ratio[exits] = soft_ratio(confidence[exits]) if c.soft else np.float32(1)

    def evaluate(self, risk: Floats, exit_layer: Layers, confidence: Floats, ratio: Floats) -> None:
        thresholds = self.thresholds()
        for at in range(risk.shape[1]):
            self.observe(at, thresholds[at], risk[:, at], exit_layer, confidence, ratio)


def soft_ratio(confidence: Floats) -> Floats:
    """tanh(2C - 1) / 2 + 1/2: the share of channels to skip (seed 004). 0.119 at C = 0, 0.881 at C = 1, never 1."""
    half = np.float32(0.5)
    ratio: Floats = np.tanh(confidence + confidence - np.float32(1)) * half + half
    return ratio
