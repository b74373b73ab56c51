"""Classifier-free guidance: what the prompt adds to a prediction, made larger. A denoiser around a denoiser.

logits = u + (scale + 1) (c - u), c with the prompt and u with [MASK] in its place. arXiv:2207.12598, in LLaDA's
convention (arXiv:2502.09992). A masked denoiser knows u without having been trained for it (arXiv:2410.18514).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Context, Denoiser, Exit, StepLike


@dataclass(frozen=True, eq=False)
class GuidedContext:
    """One context of 2 B rows: first those that know the prompt, then those that do not.

    The prompt is all that was there when a block was first looked at: what was remembered before, and what was shown in
    that block. Tokens that are decoded are seen by both halves, and so is what lies ahead of a canvas' block.
    """

    inner: Context
    prompt: Tensor | None = None  # which of the coming block is prompt (B, L), or (): False; None: not looked yet, all

    @property
    def exact(self) -> bool:
        return self.inner.exact

    @property
    def aligned(self) -> bool:
        return self.inner.aligned

    def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
        return self.inner.open(_twice(block), banned)[: len(block)]

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Self:
        return replace(self, inner=self.inner.facing(_twice(ahead), at))

    def refresh(self, seen: Context, step: StepLike) -> Self:
        assert isinstance(seen, GuidedContext)
        return replace(self, inner=self.inner.refresh(seen.inner, step), prompt=seen.prompt)


class Guided:
    """A Denoiser that follows its prompt more closely the larger the scale; 0 is the denoiser itself, at its own cost.

    Else each call is one of twice the rows. Without a prompt it changes nothing. Logits are in fp32.
    """

    def __init__(self, denoiser: Denoiser, scale: float) -> None:
        if not 0 <= scale < float("inf"):
            raise UsageError(f"a guidance scale of {scale} must be at least 0 (0: off) and finite")
        self.denoiser, self.scale, self.spec = denoiser, scale, denoiser.spec

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Context:
        if not self.scale:
            return self.denoiser.begin(kind, batch_size, length, first)
        return GuidedContext(self.denoiser.begin(kind, 2 * batch_size, length, _twice(first)))

    def __call__(
        self,
        block: Tensor,
        context: Context | None = None,
        *,
        t: Tensor | None = None,
        depth: int | None = None,
        exit: Exit | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Context]:
        if not self.scale:
            return self.denoiser(block, context, t=t, depth=depth, exit=exit, rows=rows)
        if exit is not None:
            raise UsageError(f"early exit (SEDAC) judges what a model itself predicts: not with guidance {self.scale}")
        if context is not None and not isinstance(context, GuidedContext):
            raise UsageError(f"{type(context).__name__} is not a context of a guided denoiser: begin() makes those")
        inner, prompt = (None, None) if context is None else (context.inner, context.prompt)
        remembering = rows is not None and not rows.numel()
        if prompt is None:
            prompt = torch.ones_like(block, dtype=torch.bool) if remembering else self._given(block, inner)
        both = torch.cat((block, block.masked_fill(prompt, self.spec.mask_id)))  # (2 B, L)
        wanted = rows if remembering else _twice(rows)
        logits, seen = self.denoiser(both, inner, t=_twice(t), depth=depth, rows=wanted)
        if remembering:
            looked = context is not None and context.prompt is not None
            return logits, GuidedContext(seen, block.new_zeros((), dtype=torch.bool) if looked else None)
        c, u = logits.float().tensor_split(2)
        return u + (self.scale + 1) * (c - u), GuidedContext(seen, prompt)

    def _given(self, block: Tensor, inner: Context | None) -> Tensor:
        """What is shown of the first block (B, L), but for what the context has decided of it by itself."""
        shown = block != self.spec.mask_id
        if inner is None:
            return shown
        opened = inner.open(_twice(torch.full_like(block, self.spec.mask_id)))[: len(block)]
        return shown & (block != opened)


def _twice(x: Any) -> Any:
    return None if x is None else torch.cat((x, x))
