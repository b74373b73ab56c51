"""Risk probes: how likely is it that what a step shows of a token would change if the layers ended here.

A probe reads the token's state behind one layer, and how far the block has come. It has to tell risky tokens from safe
ones better than what is free does (arXiv:2508.21495: rank by failure, do not calibrate confidence), else it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from diffulex_edge.errors import UsageError

WIDTH = 32  # inner units


class Risk(Protocol):
    """What judges tokens behind a layer: a Probe, or a FreeRisk where none was admitted."""

    def __call__(self, x: Tensor, masked: Tensor, t: Tensor, last: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """sigmoid(v . silu(W [norm(x); masked; t] + b) + c): of the state x, the share that is masked, and the time."""

    inward: Tensor  # (WIDTH, D + 2)
    bias: Tensor  # (WIDTH,)
    outward: Tensor  # (WIDTH,)
    offset: Tensor  # ()

    def __call__(self, x: Tensor, masked: Tensor, t: Tensor, last: Tensor | None = None) -> Tensor:
        """Risks (...,) in float32, in (0, 1), of states x (..., D); masked and t (...,) or what broadcasts to it.

        last: the states behind the layer before, which a probe does not ask for.
        """
        shape = x.shape[:-1]
        state = F.layer_norm(x.float(), x.shape[-1:])
        moment = torch.stack((masked.float().expand(shape), t.float().expand(shape)), -1)
        inner = F.silu(F.linear(torch.cat((state, moment), -1), self.inward, self.bias))
        return torch.sigmoid(inner @ self.outward + self.offset)

    def tensors(self) -> dict[str, Tensor]:
        """Its numbers by name, for a file."""
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], width: int) -> Self:
        """From `tensors` of a model of D = width; UsageError where their shapes are no probe of it."""
        shapes = {"inward": (WIDTH, width + 2), "bias": (WIDTH,), "outward": (WIDTH,), "offset": ()}
        found = {name: tuple(tensors[name].shape) for name in shapes if name in tensors}
        if found != shapes:
            raise UsageError(f"{found} are not the tensors of a probe of states of {width} numbers")
        return cls(**{name: tensors[name].float() for name in shapes})


_NAMES = ("inward", "bias", "outward", "offset")


def fit(x: Tensor, masked: Tensor, t: Tensor, changed: Tensor, *, epochs: int = 12, seed: int = 0) -> Probe:
    """A probe of n tokens: states x (n, D), masked, t (n,), and whether the token would change (n,) of bool.

    Logistic loss, AdamW, a learning rate that falls to 0. Both outcomes have to occur.
    """
    if not 0 < int(changed.sum()) < len(changed):
        raise UsageError(f"{int(changed.sum())} of {len(changed)} tokens would change: a probe learns from both kinds")
    generator = torch.Generator().manual_seed(seed)
    wide = x.shape[1] + 2
    weights = [
        torch.randn(WIDTH, wide, generator=generator) / wide**0.5,
        torch.zeros(WIDTH),
        torch.randn(WIDTH, generator=generator) / WIDTH**0.5,
        torch.logit(changed.float().mean()),
    ]
    probe = Probe(**dict(zip(_NAMES, (w.requires_grad_() for w in weights), strict=True)))
    optimiser = torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.01)
    size = min(1024, len(x))
    steps = epochs * -(-len(x) // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: 1 - i / steps)
    with torch.enable_grad():
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(size):
                risk = probe(x[rows], masked[rows], t[rows])
                loss = F.binary_cross_entropy(risk, changed[rows].float())
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    return Probe(**{name: value.detach() for name, value in probe.tensors().items()})


def auroc(score: Tensor, changed: Tensor) -> float:
    """P(a token that would change scores above one that would not), ties counted half: score, changed (n,)."""
    positive, negative = score[changed].double(), score[~changed].double().sort().values
    if not len(positive) or not len(negative):
        raise UsageError("AUROC needs tokens that would change and tokens that would not")
    below = torch.searchsorted(negative, positive)
    upto = torch.searchsorted(negative, positive, right=True)
    return float((below + upto).double().mean() / (2 * len(negative)))
