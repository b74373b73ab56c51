"""One reverse step of a block: what the plan tells the denoiser and the reveal. A value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from diffulex_edge.model.base import Exit


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """Step `index` of `steps`; rows with fewer masks than steps have had their last one earlier."""

    index: int  # 0 is the noisiest
    steps: int
    t: Tensor  # (B,) schedule time at which it begins: 1 at the first step
    s: Tensor  # (B,) schedule time at which it ends: 0 at a row's last
    depth: int  # layers to run
    quota: Tensor  # (B,) integers: tokens to show
    last: Tensor  # (B,) bool: all that is left is to be shown

    @property
    def fallback(self) -> bool:
        """The pass after the last step, for what a reveal left hidden."""
        return self.index == self.steps


class ExitController(Protocol):
    """Decides step by step where the layers may end early: SEDAC."""

    def start(self, block: Tensor, hidden: Tensor, step: Step) -> Exit | None:
        """The exit of one look at a block (B, L) of which `hidden` (B, L) is not shown yet; None: all layers run."""
        ...
