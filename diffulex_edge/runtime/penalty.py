"""The repetition penalty: tokens that are in the text already become less likely. A denoiser around a denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Context, Denoiser, Exit, StepLike


@dataclass(frozen=True, eq=False)
class PenalisedContext:
    """A context that also knows which tokens it has taken in."""

    inner: Context
    seen: Tensor | None = None  # (B, V) bool; None: nothing yet

    @property
    def exact(self) -> bool:
        return self.inner.exact

    @property
    def aligned(self) -> bool:
        return self.inner.aligned

    def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
        return self.inner.open(block, banned)

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Self:
        return replace(self, inner=self.inner.facing(ahead, at))

    def refresh(self, seen: Context, step: StepLike) -> Self:
        assert isinstance(seen, PenalisedContext)
        return replace(self, inner=self.inner.refresh(seen.inner, step))


class Penalised:
    """A Denoiser whose logits of seen tokens are divided by the penalty if positive, else multiplied: arXiv:1909.05858.

    Seen are the prompt, the finished blocks, and what the block shows so far, wherever in it that stands. Two equal
    tokens that one step shows together do not know of each other. Logits are in fp32; a penalty of 1 changes nothing.
    """

    def __init__(self, denoiser: Denoiser, penalty: float) -> None:
        if not 0 < penalty < float("inf"):
            raise UsageError(f"repetition_penalty={penalty} must be above 0 (1: off) and finite")
        self.denoiser, self.penalty, self.spec = denoiser, penalty, denoiser.spec

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Context:
        return PenalisedContext(self.denoiser.begin(kind, batch_size, length, first))

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
        if context is not None and not isinstance(context, PenalisedContext):
            raise UsageError(f"{type(context).__name__} is not a context of a penalised denoiser: begin() makes those")
        inner, before = (None, None) if context is None else (context.inner, context.seen)
        logits, after = self.denoiser(block, inner, t=t, depth=depth, exit=exit, rows=rows)
        if before is None:
            before = torch.zeros(len(block), self.spec.vocab_size, dtype=torch.bool, device=block.device)
        seen = before.scatter(1, block, True)  # (B, V); the mask id among them, which is never decoded anyway
        if rows is not None and not rows.numel():
            return logits, PenalisedContext(after, seen)
        where = seen[:, None] if rows is None else seen[rows.nonzero()[:, 0]]  # (B, 1, V) or (n, V)
        logits = logits.float()
        lower = torch.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return torch.where(where, lower, logits), PenalisedContext(after, before)
