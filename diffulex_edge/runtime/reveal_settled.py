"""Early commit: showing the whole block at once when the answer is settled. The rule is a threshold over progress."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.confidence import logit_gap
from diffulex_edge.runtime.reveal import Reveal, RevealTop
from diffulex_edge.runtime.sampler import Guess
from diffulex_edge.runtime.showing import show
from diffulex_edge.runtime.step import Step

Settled = Callable[[Tensor], Tensor]  # from the share (B,) of its steps a row has behind it to the gap (B,) it needs


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 <= value < float("inf"):
            raise UsageError(f"{name}={value} must be at least 0 and finite")


@dataclass(frozen=True)
class Prophet:
    """Three phases, before 0.33 of the steps, before 0.67 and after: Prophet, arXiv:2508.19982."""

    early: float = 7.5  # logits
    mid: float = 5.0  # logits
    late: float = 2.5  # logits

    def __post_init__(self) -> None:
        _check(early=self.early, mid=self.mid, late=self.late)

    def __call__(self, progress: Tensor) -> Tensor:
        late = torch.where(progress < 0.67, self.mid, self.late)
        return torch.where(progress < 0.33, self.early, late)


@dataclass(frozen=True)
class Exponential:
    """exp(-k p): falls the faster, the larger k is. SchED, arXiv:2512.02892, which tries k of 2, 4, 8 and 16."""

    k: float = 2.0

    def __post_init__(self) -> None:
        _check(k=self.k)

    def __call__(self, progress: Tensor) -> Tensor:
        return torch.exp(-self.k * progress)


def cosine(progress: Tensor) -> Tensor:
    """(1 + cos(pi p)) / 2: slow, fast, slow. SchED, arXiv:2512.02892."""
    return (1 + torch.cos(math.pi * progress)) / 2


def linear(progress: Tensor) -> Tensor:
    """1 - p. SchED, arXiv:2512.02892."""
    return 1 - progress


@dataclass(frozen=True)
class SchED:
    """From `high` smoothly down towards `low`: low + (high - low) curve(p). SchED, arXiv:2512.02892.

    The paper's threshold alone; its code waits, besides, for a step at which no guess has changed.
    """

    high: float = 7.5  # logits
    low: float = 0.0  # logits
    curve: Callable[[Tensor], Tensor] = Exponential()  # falls from 1

    def __post_init__(self) -> None:
        _check(high=self.high, low=self.low)

    def __call__(self, progress: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * self.curve(progress)


@dataclass(frozen=True)
class RevealSettled:
    """What another reveal shows, until a row is settled; then all of it: Prophet, arXiv:2508.19982.

    A row is settled when the gap between its highest and its second logit, averaged over its hidden positions, reaches
    what the rule asks for at this point. Progress is counted within the block.
    """

    rule: Settled = Prophet()
    inner: Reveal = RevealTop()

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        after, state = self.inner(guess, block, given, step, state)
        gaps = torch.zeros(block.shape, device=block.device).masked_scatter(guess.hidden, logit_gap(guess))  # (B, L)
        mean = gaps.sum(1) / guess.hidden.sum(1).clamp(min=1)
        settled = mean >= self.rule(1 - step.t)  # (B,)
        return torch.where(settled[:, None], show(guess, block, guess.hidden), after), state
