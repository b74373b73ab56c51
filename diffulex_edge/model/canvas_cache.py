"""Approximate caches of a canvas: keys and values of all its text, as the last whole look left them.

Where attention looks everywhere, what is remembered of one place changes with every other. Fast-dLLM (arXiv:2505.22618)
keeps it all the same: the first look at a block reads the whole canvas, later looks read the block (`dual`), or the
block and what lies ahead (`prefix`), against what that first look left of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from diffulex_edge.model.base import Context, StepLike
from diffulex_edge.model.kv_cache import KVContext, KVLayer, room, visible


@dataclass(frozen=True, eq=False)
class CanvasCache:
    """Buffers over the whole canvas, shared by all contexts made from one: go on from the newest only."""

    buffers: KVContext
    prefix: Tensor  # (B, S) ids
    dual: bool  # what lies ahead is not read again either
    warm: bool = False  # a look has read the canvas since the text before the block last grew
    ahead: Tensor | None = None  # (B, R) ids
    ahead_at: Tensor | None = None  # (R,) columns between the block and each of these; None: 0, 1, 2, ...
    exact = False
    aligned = False

    @property
    def length(self) -> int:
        return self.prefix.shape[1]

    @property
    def first(self) -> Tensor | None:
        return self.buffers.first

    def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
        return block

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Self:
        return replace(self, ahead=ahead, ahead_at=at, warm=False)

    def refresh(self, seen: Context, step: StepLike) -> Self:
        assert isinstance(seen, type(self))
        return seen

    def append(self, block: Tensor) -> Self:
        return replace(self, prefix=torch.cat((self.prefix, block), 1), ahead=None, ahead_at=None, warm=False)

    def warmed(self) -> Self:
        return replace(self, warm=True)

    def reading(self, block: Tensor, behind: int) -> tuple[Tensor, int]:
        """The ids to read for a block (B, L), and the position of the first; `behind` tokens before it are needed."""
        ahead = block[:, :0] if self.ahead is None else self.ahead
        if not self.warm:
            return torch.cat((self.prefix, block, ahead), 1), 0
        start = max(0, self.length - behind)
        return torch.cat((self.prefix[:, start:], block, block[:, :0] if self.dual else ahead), 1), start

    def places(self, start: int, length: int, ids: Tensor) -> Tensor | None:
        """Positions of the ids that are read from `start` on, for a block of `length`; None: the columns."""
        return places_of(start, self.length + length, ids, self.ahead_at)

    def at(self, start: int) -> Window:
        """The buffers as the layers see them when the reading begins at `start`."""
        ahead = 0 if self.ahead is None else self.ahead.shape[1]
        return Window(self.buffers, start, ahead if self.dual and self.warm else 0)


@dataclass(frozen=True, eq=False)
class Window:
    """A part of the canvas that is read again; what lies on both sides of it is remembered."""

    buffers: KVContext
    start: int
    beyond: int  # columns behind the part

    def check_room(self, length: int) -> None:
        room(self.buffers.keys, self.start, length + self.beyond)

    def mask(self, length: int, block_length: int | None) -> Tensor | None:
        """What the part, of `length` tokens, sees of the canvas (B or 1, 1, L, S); None: all."""
        buffers, reach = self.buffers, self.start + length + self.beyond
        return visible(self.start, length, reach, block_length, buffers.first, buffers.keys.device)

    def layer(self, index: int) -> KVLayer:
        return KVLayer(self.buffers.keys[index], self.buffers.values[index], self.start, self.beyond)


def places_of(start: int, stop: int, ids: Tensor, at: Tensor | None) -> Tensor | None:
    """Positions (L,) of ids (B, L) read from column `start` on, where the block ends at `stop`; None: the columns.

    Columns say what attends to what and where a cache keeps it; positions only turn the queries and keys.
    """
    if at is None:
        return None
    return torch.cat((torch.arange(start, stop, device=ids.device), stop + at))[: ids.shape[1]]
