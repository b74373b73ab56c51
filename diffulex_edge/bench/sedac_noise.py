"""Seed 004's argument, simulated: does gathering confidence across layers withstand noise that one layer does not.

Easy tokens have risk 0.6, hard ones 1.0, and each layer's probe errs by a normal error of deviation 0.3. Every rule is
set so that half of the easy tokens exit; what counts is how many hard ones do. The seed's central limit theorem needs
errors that are independent from layer to layer, which those of one residual stream are not: so correlation is the axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffulex_edge.sedac import SEED_LAYERS, CascadeController, LayerConfig

EASY, HARD, SIGMA = 0.6, 1.0, 0.3
CORRELATIONS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)
Score = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # risks (n, 3) -> (n,): the higher, the sooner it exits


def noise_resilience(
    n: int = 100_000, seed: int = 0, correlations: Sequence[float] = CORRELATIONS
) -> list[dict[str, Any]]:
    """The share of hard tokens that exit where half of the easy ones do, by rule and correlation of the errors."""
    rules: dict[str, Score] = {
        "last layer alone": lambda risk: -risk[:, 2],
        "gathered, at the last layer": _gathered,
        "cascade, at any layer": _soonest,
    }
    rows = []
    for rho in correlations:
        easy, hard = (_risks(level, rho, n, seed + i) for i, level in enumerate((EASY, HARD)))
        false = {name: float((score(hard) >= np.median(score(easy))).mean()) for name, score in rules.items()}
        rows.append({"correlation": rho, "hard_exits": false})
    return rows


def _risks(level: float, rho: float, n: int, seed: int) -> NDArray[np.float32]:
    """(n, 3) with errors of correlation rho between layers."""
    draw = np.random.default_rng(seed).standard_normal((n, 4))
    errors = np.sqrt(rho) * draw[:, :1] + np.sqrt(1 - rho) * draw[:, 1:]
    return (level + SIGMA * errors).astype(np.float32)


def _gathered(risk: NDArray[np.float32]) -> NDArray[np.float32]:
    """C behind the last checkpoint of the seed's cascade, had no token exited before."""
    layers = [
        LayerConfig(c.layer_idx, c.target_exit_rate, c.initial_threshold, c.confidence_weight, np.inf)
        for c in SEED_LAYERS
    ]
    return CascadeController(layers).evaluate_batch(risk).accumulated_confidence


def _soonest(risk: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest factor on all of the seed's exit confidences at which a token exits somewhere."""
    parts = [_gathered(risk[:, :k]) / np.float32(SEED_LAYERS[k - 1].exits_at) for k in (1, 2, 3)]
    return np.max(parts, axis=0)
