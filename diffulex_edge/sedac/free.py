"""Risk without a probe: how unsure the model's own head is behind a layer, or how far the layer moved the state.

What a probe has to beat, and what serves where it does not. The head behind each checkpoint is not free in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def _max_probability(logits: Tensor, x: Tensor, last: Tensor | None) -> Tensor:
    return -logits.float().softmax(-1).amax(-1)


def _margin(logits: Tensor, x: Tensor, last: Tensor | None) -> Tensor:
    top = logits.float().softmax(-1).topk(2).values
    return top[..., 1] - top[..., 0]


def _entropy(logits: Tensor, x: Tensor, last: Tensor | None) -> Tensor:
    return torch.special.entr(logits.float().softmax(-1)).sum(-1)


def _cosine(logits: Tensor, x: Tensor, last: Tensor | None) -> Tensor:
    return x.new_zeros(x.shape[:-1]) if last is None else -torch.cosine_similarity(x.float(), last.float(), -1)


# From logits (..., V) without ids that are never shown, states x (..., D) and those behind the layer before, or None:
# (...,), the higher, the riskier.
SCORES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "max probability": _max_probability,
    "margin": _margin,
    "entropy": _entropy,
    "cosine": _cosine,
}


@dataclass(frozen=True, kw_only=True)
class FreeScore:
    """Which score serves, and the risk that it means: sigmoid(slope score + offset)."""

    name: str
    slope: float
    offset: float


@dataclass(frozen=True, kw_only=True, eq=False)
class FreeRisk:
    """A risk as a Probe gives it, of a model whose head is `logits`: from states (..., D) to (..., V)."""

    score: FreeScore
    logits: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, masked: Tensor, t: Tensor, last: Tensor | None = None) -> Tensor:
        """Risks (...,) in float32; masked and t are not asked."""
        found = SCORES[self.score.name](self.logits(x), x, last)
        return torch.sigmoid(self.score.slope * found.float() + self.score.offset)


def calibrated(name: str, score: Tensor, changed: Tensor, rounds: int = 25) -> FreeScore:
    """The logistic curve of a score (n,) against whether tokens would change (n,): Newton's method, a slight ridge."""
    x, y = score.double(), changed.double()
    centre, spread = x.mean(), x.std().clamp(min=1e-6)
    features = torch.stack(((x - centre) / spread, torch.ones_like(x)), 1)  # (n, 2)
    weights = torch.zeros(2, dtype=torch.float64)
    ridge = torch.eye(2, dtype=torch.float64) * 1e-3
    for _ in range(rounds):
        p = torch.sigmoid(features @ weights)
        slope = features.T @ (p - y) + ridge @ weights
        curve = (features * (p * (1 - p))[:, None]).T @ features + ridge
        weights = weights - torch.linalg.solve(curve, slope)
    steepness, height = float(weights[0] / spread), float(weights[1])
    return FreeScore(name=name, slope=steepness, offset=height - steepness * float(centre))
