"""How many layers each reverse step runs. Only denoising may be shallow; what is remembered always runs them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from diffulex_edge.errors import UsageError


class DepthSchedule(Protocol):
    def layers(self, index: int, steps: int, n_layers: int) -> int:
        """For step `index` of `steps`, 0 being the noisiest: between 1 and n_layers."""
        ...


@dataclass(frozen=True)
class LinearDepth:
    """Lmin + ceil((L - Lmin) (1 - s / (S - 1))) with s from S - 1 down to 0: shallow while noisy. Seed 000.

    In integers, and L for a single step. min_depth=0 is off: full depth at every step, not a run of no layers.
    """

    min_depth: int = 0  # layers of the first step; 0: full depth

    def __post_init__(self) -> None:
        _check(min_depth=self.min_depth)

    def layers(self, index: int, steps: int, n_layers: int) -> int:
        least = _within(self.min_depth, n_layers)
        if steps == 1:
            return n_layers
        return least - (-(n_layers - least) * index // (steps - 1))


@dataclass(frozen=True)
class SandwichDepth:
    """Shallow in the first and the last quarter of the steps, full in the sensitive middle: arXiv:2604.02340."""

    min_depth: int = 0  # layers of the shallow steps; 0: full depth
    one_in: int = 4  # steps // one_in are shallow at either end

    def __post_init__(self) -> None:
        _check(min_depth=self.min_depth)
        if not isinstance(self.one_in, int) or self.one_in < 2:
            raise UsageError(f"one_in={self.one_in} must be an integer of at least 2: two ends fit into the steps")

    def layers(self, index: int, steps: int, n_layers: int) -> int:
        least, edge = _within(self.min_depth, n_layers), steps // self.one_in
        return n_layers if edge <= index < steps - edge else least


@dataclass(frozen=True)
class ConstantDepth:
    """The same depth at every step."""

    depth: int = 0  # layers; 0: full depth

    def __post_init__(self) -> None:
        _check(depth=self.depth)

    def layers(self, index: int, steps: int, n_layers: int) -> int:
        return _within(self.depth, n_layers)


def _check(**depth: int) -> None:
    for name, value in depth.items():
        if not isinstance(value, int) or value < 0:
            raise UsageError(f"{name}={value} must be an integer of at least 0 (0: full depth)")


def _within(depth: int, n_layers: int) -> int:
    if depth > n_layers:
        raise UsageError(f"a depth of {depth} is more than the model's {n_layers} layers")
    return depth or n_layers
