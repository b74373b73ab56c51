"""Noise schedules: the share of tokens that is masked at time t; the same ones for training and decoding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError


class NoiseSchedule(Protocol):
    """r(t), increasing, r(0) = 0 (all clean), r(1) = 1 (all masked)."""

    def mask_rate(self, t: Tensor) -> Tensor: ...

    def slope(self, t: Tensor) -> Tensor:
        """dr/dt: the NELBO weighs the cross entropy of a masked token by slope / mask_rate."""
        ...

    def time(self, share: Tensor) -> Tensor:
        """The t at which a share in [0, 1] is masked: the inverse of mask_rate."""
        ...

    def still_masked(self, step: int, steps: int, length: int) -> int:
        """floor(length * r(1 - (step + 1) / steps)): how many of `length` tokens are hidden after that step."""
        ...


@dataclass(frozen=True)
class Linear:
    """r(t) = t: MDLM's log-linear schedule, arXiv:2406.07524. The weight is 1/t."""

    def mask_rate(self, t: Tensor) -> Tensor:
        return t

    def slope(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time(self, share: Tensor) -> Tensor:
        return share

    def still_masked(self, step: int, steps: int, length: int) -> int:
        return length * (steps - 1 - step) // steps


@dataclass(frozen=True)
class Cosine:
    """r(t) = cos(pi (1 - t) / 2): slow to reveal at first. MaskGIT, arXiv:2202.04200, with t = 1 - r; seed 002's.

    MDLM's "cosine" is another curve, 1 - cos(pi t / 2), which reveals most in the first steps.
    """

    def mask_rate(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * t)  # the same curve without the cancellation near t = 0

    def slope(self, t: Tensor) -> Tensor:
        return math.pi / 2 * torch.cos(math.pi / 2 * t)

    def time(self, share: Tensor) -> Tensor:
        return torch.asin(share) * (2 / math.pi)

    def still_masked(self, step: int, steps: int, length: int) -> int:
        if step >= steps - 1:
            return 0
        return math.floor(length * math.cos(math.pi / 2 * (step + 1) / steps))


SCHEDULES: dict[str, NoiseSchedule] = {"linear": Linear(), "cosine": Cosine()}


def find_schedule(name: str) -> NoiseSchedule:
    """The schedule of a name, as a config and seed 002's --mask_schedule give it."""
    if name not in SCHEDULES:
        raise UsageError(f"mask schedule {name!r} is not one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name]
