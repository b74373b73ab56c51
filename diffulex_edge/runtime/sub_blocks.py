"""A block decoded part by part: nothing of the next part is shown while anything of this one is hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.reveal import Reveal, RevealAbove
from diffulex_edge.runtime.sampler import Guess
from diffulex_edge.runtime.step import Step


@dataclass(frozen=True)
class SubBlocks:
    """Another reveal, in each row's first sub-block that has something hidden: Fast-dLLM v2, arXiv:2509.26328.

    Sub-blocks lie on a grid that begins with the block. The quota is a floor within the sub-block alone; in a row's
    last step all is shown, wherever it is. Fast-dLLM v2 sets no number of steps: with OneByOne and as many steps as the
    block has tokens its loop is repeated token for token. It shows what is above its threshold, RevealAbove what is at
    least as high; at a threshold of 1 its loop is RevealTop.
    """

    inner: Reveal = RevealAbove()
    size: int = 8  # tokens

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise UsageError(f"size={self.size} tokens must be an integer of at least 1")

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        part = torch.arange(block.shape[1], device=block.device) // self.size  # (L,)
        first = torch.where(guess.hidden, part, block.shape[1]).amin(1, keepdim=True)  # (B, 1)
        return self.inner(guess.within((part == first) | step.last[:, None]), block, given, step, state)
