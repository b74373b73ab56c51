"""What calibration looks at numbers with: observers see tensors go by and then say how integers should cover them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError

LOW, HIGH = -128, 127  # of activations; weights have the same on both sides of zero
TINY = 1e-9  # a scale is at least this: of what is always zero


@dataclass(frozen=True)
class Range:
    """x is about (code - zero) * scale, the code from -128 to 127."""

    scale: float
    zero: int


class Observer(Protocol):
    """Sees activations of one place."""

    def observe(self, x: Tensor) -> None: ...

    def range(self) -> Range:
        """Raises UsageError where nothing was seen."""
        ...


class MinMax:
    """The least and the greatest that were ever seen."""

    def __init__(self) -> None:
        self.low, self.high, self.seen = 0.0, 0.0, False

    def observe(self, x: Tensor) -> None:
        if x.numel():
            low, high = (float(end) for end in torch.aminmax(x.detach()))
            self._take(low, high)
            self.seen = True

    def _take(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)

    def range(self) -> Range:
        return _affine(self.low, self.high, self.seen)


class MovingAverage(MinMax):
    """Ends that move towards those of each tensor by a constant: one wild tensor does not widen them for good."""

    def __init__(self, averaging_constant: float = 0.01) -> None:
        super().__init__()
        if not 0 < averaging_constant <= 1:
            raise UsageError(f"{averaging_constant=} must be above 0 and at most 1")
        self.pace = averaging_constant

    def _take(self, low: float, high: float) -> None:
        pace = self.pace if self.seen else 1.0  # the first is taken whole
        self.low += pace * (low - self.low)
        self.high += pace * (high - self.high)


class Covering:
    """Ends that leave out a share of the numbers of each tensor on either side, then the widest of these."""

    def __init__(self, share: float = 1e-4) -> None:
        if not 0 <= share < 0.5:
            raise UsageError(f"{share=} must be from 0 to below one half")
        self.share, self._ends = share, MinMax()

    def observe(self, x: Tensor) -> None:
        flat = x.detach().flatten().float()
        left = int(self.share * len(flat))
        if left:
            low, high = flat.kthvalue(left + 1).values, flat.kthvalue(len(flat) - left).values
            flat = torch.stack((low, high))
        self._ends.observe(flat)

    def range(self) -> Range:
        return self._ends.range()


def _affine(low: float, high: float, seen: bool) -> Range:
    """Codes that reach from low to high, zero among them and exact."""
    if not seen:
        raise UsageError("an observer has seen nothing: the model was not run while it was calibrated")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / (HIGH - LOW), TINY)
    return Range(scale, max(LOW, min(HIGH, round(LOW - low / scale))))


def tensor_scale(weight: Tensor, bits: int = 8) -> Tensor:
    """One scale (H, 1), the same for every row of weight (H, D)."""
    return row_scale(weight, bits).amax().expand(len(weight), 1).contiguous()


def row_scale(weight: Tensor, bits: int = 8) -> Tensor:
    """A scale (H, 1) for each row, an output channel, of weight (H, D): codes reach 2^(bits - 1) - 1 on either side."""
    return (weight.detach().float().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)).clamp(min=TINY)


@dataclass(frozen=True)
class Observers:
    """How static quantisation looks at a layer: what goes in and out, and its weight."""

    activation: Callable[[], Observer] | None  # None: each token has a range of its own when it comes
    weight: Callable[[Tensor], Tensor]


def get_default_observers() -> Observers:
    """Least and greatest of activations; one scale a weight. Seed 003's name, as are the others."""
    return Observers(MinMax, tensor_scale)


def get_per_channel_observers() -> Observers:
    """Least and greatest of activations; a scale for each output channel of a weight."""
    return Observers(MinMax, row_scale)


def get_moving_average_observers(averaging_constant: float = 0.01) -> Observers:
    """Moving ends of activations; a scale for each output channel of a weight."""
    return Observers(lambda: MovingAverage(averaging_constant), row_scale)


def get_dynamic_quant_observers() -> Observers:
    """Nothing to observe of activations; a scale for each output channel of a weight."""
    return Observers(None, row_scale)
