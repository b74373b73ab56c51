"""How much of the hidden text ahead of a block is read: all of it, or what is near and a sparse sample of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError


class Suffix(Protocol):
    """Asked once a block; only a canvas reads what it chooses."""

    def __call__(self, known: Tensor, seed: int) -> Tensor:
        """The columns (R',) to read of the R behind the block, ascending; known (B, R): where text is there already."""
        ...


@dataclass(frozen=True)
class WholeSuffix:
    """All of it."""

    def __call__(self, known: Tensor, seed: int) -> Tensor:
        return torch.arange(known.shape[1], device=known.device)


@dataclass(frozen=True, kw_only=True)
class SuffixDropout:
    """The nearest `window` tokens, and one d > window tokens ahead with probability p(d). DPad, arXiv:2508.14148.

    p(d) = density exp(-((d - window) / decay)^2 / 2). The paper has no part that is read whole: its window W, of k
    standard deviations and scale a, is window=0, density=a / sqrt(2 pi), decay=W / k here, and cut off at W. Chance is
    drawn once for each column and not once a block, so what is read stays read as the blocks draw near; it is counted
    from the end of the text, which rows of one length to fill share. Columns where any row has text are always read.
    """

    window: int = 64  # tokens
    density: float = 0.5  # share of the tokens just behind the window that is read
    decay: float = 64.0  # tokens, the standard deviation

    def __post_init__(self) -> None:
        if not isinstance(self.window, int) or self.window < 0:
            raise UsageError(f"a suffix window of {self.window} tokens must be an integer of at least 0")
        if not 0 <= self.density <= 1:
            raise UsageError(f"density={self.density} must be in [0, 1]")
        if not 0 < self.decay < float("inf"):
            raise UsageError(f"decay={self.decay} tokens must be above 0 and finite")

    def __call__(self, known: Tensor, seed: int) -> Tensor:
        length = known.shape[1]
        chance = torch.rand(length, generator=torch.Generator().manual_seed(seed)).flip(0)  # (R,)
        beyond = (torch.arange(1, length + 1) - self.window).clamp(min=0)  # (R,)
        share = self.density * torch.exp(-((beyond / self.decay) ** 2) / 2)
        read = (beyond == 0) | (chance < share)
        return (read.to(known.device) | known.any(0)).nonzero()[:, 0]


def choose_suffix(window: int | None) -> Suffix:
    """What a user's number means: all that lies ahead where there is none."""
    return WholeSuffix() if window is None else SuffixDropout(window=window)
