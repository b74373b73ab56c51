"""Contexts that need no forward of their own: the ids themselves, and EcoHybrid's memory. Both are values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from diffulex_edge.model.base import Context, StepLike
from diffulex_edge.model.kv_cache import Opening


@dataclass(frozen=True, eq=False)
class FullContext:
    """The ids before the block, read again at each call. `canvas=True`: the ids beyond it as well."""

    prefix: Tensor  # (B, S)
    first: Tensor | None = None  # (B,) columns before it are padding
    ahead: Tensor | None = None  # (B, R)
    ahead_at: Tensor | None = None  # (R,) columns between the block and each of these; None: 0, 1, 2, ...
    canvas: bool = False
    aligned: bool = False  # blocks lie on a grid
    opening: Opening | None = None  # what the coming block begins with, where that is decided
    exact = True

    @property
    def length(self) -> int:
        return self.prefix.shape[1]

    def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
        return block if self.opening is None else self.opening(block, banned)

    def opened(self, opening: Opening) -> Self:
        return replace(self, opening=opening)

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Self:
        return replace(self, ahead=ahead, ahead_at=at) if self.canvas else self

    def refresh(self, seen: Context, step: StepLike) -> Self:
        return self

    def append(self, block: Tensor) -> Self:
        return replace(self, prefix=torch.cat((self.prefix, block), 1), ahead=None, ahead_at=None)

    def spread(self, block: Tensor) -> tuple[Tensor, slice]:
        """All ids that the model reads (B, S + L + R), and where in them the block (B, L) is."""
        start = self.prefix.shape[1]
        parts = [part for part in (self.prefix, block, self.ahead) if part is not None and part.shape[1]]
        ids = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return ids, slice(start, start + block.shape[1])

    def real(self, width: int) -> Tensor | None:
        """Which of `width` columns hold real tokens (B, width); None: all."""
        if self.first is None:
            return None
        return torch.arange(width, device=self.first.device) >= self.first[:, None]


def empty_full(
    batch_size: int, device: torch.device, *, first: Tensor | None = None, canvas: bool = False, aligned: bool = False
) -> FullContext:
    ids = torch.zeros(batch_size, 0, dtype=torch.long, device=device)
    return FullContext(ids, first=first, canvas=canvas, aligned=aligned)


@dataclass(frozen=True, eq=False)
class LayerMemory:
    """What one EcoHybrid layer remembers of the text before the block."""

    bank: Tensor  # (B, M, D); (B, J * M, D) where it accumulates J blocks
    halo: Tensor  # (B, W, D) the last inputs of the layer's local mixing; zeros where there was no text


@dataclass(frozen=True, eq=False)
class MemoryContext:
    """Frozen memory: a bank of slots and a short halo a layer, of constant size whatever the length of the text."""

    layers: tuple[LayerMemory, ...]
    seen: Tensor  # (B,) real tokens remembered so far
    position: int = 0  # column at which the coming block begins
    first: Tensor | None = None  # (B,)
    slots: Tensor | None = None  # (B, M, D) that the reverse step before ended with, where the model carries them
    recalled: list[Any] = field(default_factory=list, init=False, repr=False)  # of `recall`
    exact = True
    aligned = True

    def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
        return block

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Self:
        return self

    def refresh(self, seen: Context, step: StepLike | None = None) -> Self:
        """With the slots of the step that was made, where the model carries them; else itself."""
        assert isinstance(seen, MemoryContext)
        if seen.slots is None:
            return self
        warm = replace(self, slots=seen.slots)
        warm.recalled.extend(self.recalled)
        return warm

    def recall(self, layers: Iterable[Any]) -> list[Any]:
        """What each layer makes of its memory; kept, for every reverse step of a block asks for the same.

        Not in training: what was made without gradients would cut them off from who asks next.
        """
        if self.recalled and not torch.is_grad_enabled():
            return self.recalled
        made = [layer.recall(memory, self.seen) for layer, memory in zip(layers, self.layers, strict=True)]
        if not torch.is_grad_enabled():
            self.recalled.extend(made)
        return made

    def advance(self, layers: tuple[LayerMemory, ...], length: int) -> Self:
        """After a block of `length` tokens; rows whose text has not begun keep what they had. Slots start afresh."""
        position = self.position + length
        if self.first is None:
            return replace(self, layers=layers, seen=self.seen + length, position=position, slots=None)
        active = self.position >= self.first  # (B,)
        keep = active[:, None, None]
        layers = tuple(
            LayerMemory(torch.where(keep, new.bank, old.bank), torch.where(keep, new.halo, old.halo))
            for new, old in zip(layers, self.layers, strict=True)
        )
        return replace(self, layers=layers, seen=self.seen + length * active, position=position, slots=None)

    def detach(self) -> Self:
        return replace(self, layers=tuple(LayerMemory(m.bank.detach(), m.halo.detach()) for m in self.layers))

    def take(self, rows: Tensor) -> Self:
        """The contexts of the given rows (n,), in that order; a row may be taken more than once."""
        layers = tuple(LayerMemory(m.bank[rows], m.halo[rows]) for m in self.layers)
        return replace(
            self, layers=layers, seen=self.seen[rows], first=_of(self.first, rows), slots=_of(self.slots, rows)
        )


def _of(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]


def join(contexts: list[MemoryContext]) -> MemoryContext:
    """K contexts of b rows as one of b * K rows, ordered (row, block): what block training denoises against at once."""

    def fold(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts, 1).flatten(0, 1)

    layers = tuple(
        LayerMemory(fold([c.layers[i].bank for c in contexts]), fold([c.layers[i].halo for c in contexts]))
        for i in range(len(contexts[0].layers))
    )
    return MemoryContext(layers, fold([c.seen for c in contexts]))
