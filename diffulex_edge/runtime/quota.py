"""How many tokens each reverse step shows. In integers: floating floors are wrong in thousands of cells."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from diffulex_edge.diffusion.schedule import NoiseSchedule
from diffulex_edge.errors import UsageError


class Quota(Protocol):
    """Shares `masked` tokens out over `steps` reverse steps, 1 <= steps <= masked. The shares add up to `masked`."""

    def split(self, masked: int, steps: int, schedule: NoiseSchedule) -> list[int]: ...


@dataclass(frozen=True)
class BySchedule:
    """As many as the noise schedule lets go, and at least one while any is hidden. MaskGIT, arXiv:2202.04200."""

    def split(self, masked: int, steps: int, schedule: NoiseSchedule) -> list[int]:
        shares, hidden = [], masked
        for step in range(steps - 1):
            still = max(0, min(schedule.still_masked(step, steps, masked), hidden - 1))
            shares.append(hidden - still)
            hidden = still
        return [*shares, hidden]


@dataclass(frozen=True)
class EvenSplit:
    """Base and remainder, the remainder first: 10 in 4 steps are 3, 3, 2, 2. LLaDA, arXiv:2502.09992."""

    def split(self, masked: int, steps: int, schedule: NoiseSchedule) -> list[int]:
        base, remainder = divmod(masked, steps)
        return [base + (step < remainder) for step in range(steps)]


@dataclass(frozen=True)
class Proportional:
    """floor(n (1 - s/t)) of the n still hidden, with t from 1 down to eps in equal steps. Dream, arXiv:2508.15487.

    A step may show nothing; its forward is spent all the same, as Dream does.
    """

    eps: Fraction = Fraction(1, 1000)  # the time at which the last step ends

    def __post_init__(self) -> None:
        if not 0 <= self.eps < 1:
            raise UsageError(f"eps={self.eps} must be in [0, 1)")

    def split(self, masked: int, steps: int, schedule: NoiseSchedule) -> list[int]:
        shares, hidden, span = [], masked, 1 - Fraction(self.eps)
        for step in range(steps - 1):
            shares.append(int(hidden * span / (steps - step * span)))  # 1 - s/t = span / (S - i span)
            hidden -= shares[-1]
        return [*shares, hidden]


@dataclass(frozen=True)
class OneByOne:
    """One a step, the rest in the last: the floor that Fast-dLLM sets under its threshold, arXiv:2505.22618."""

    def split(self, masked: int, steps: int, schedule: NoiseSchedule) -> list[int]:
        return [1] * (steps - 1) + [masked - steps + 1]
