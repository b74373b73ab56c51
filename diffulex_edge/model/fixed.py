"""Contexts of fixed shape, for graphs that are made once: how far the text goes is a tensor, not a number.

They hold what `KVContext` and `CanvasCache` hold, of one row, and a denoiser cannot tell them apart. All columns are
read and the mask sorts them out, so nothing has to be emptied before another text begins. Whether a text has room is
for the caller to see to: a graph cannot raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from diffulex_edge.model.canvas_cache import CanvasCache, Window
from diffulex_edge.model.kv_cache import KVContext, KVLayer


@dataclass(frozen=True, eq=False)
class FixedLayer(KVLayer):
    """One layer's buffers (1, H, T, E), of which all columns are given."""

    whole: bool = False  # what is written is all there is to see, and what is given

    def put(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        places = _columns(self.length, k.shape[2])
        kept = self.keys.index_copy_(2, places, k), self.values.index_copy_(2, places, v)
        return (k, v) if self.whole else kept


@dataclass(frozen=True, eq=False)
class FixedKV(KVContext):
    """For attention that is block-causal. Its length is a tensor () of whole blocks."""

    @classmethod
    def of(cls, keys: tuple[Tensor, ...], values: tuple[Tensor, ...], length: Tensor) -> FixedKV:
        """keys, values: a buffer (1, H, T, E) a layer; a graph copies what it writes to, so they may not share one."""
        return cls(cast(Tensor, keys), cast(Tensor, values), cast(int, length))

    def check_room(self, length: int) -> None:
        pass

    def mask(self, length: int, block_length: int | None) -> Tensor:
        """A token sees all that lies before the end of its own block, (1, 1, L, T)."""
        assert block_length is not None
        ends = (torch.arange(length) // block_length + 1) * block_length  # (L,) behind `length`
        return (torch.arange(self.keys[0].shape[2]) < self.length + ends[:, None])[None, None]

    def layer(self, index: int) -> FixedLayer:
        return FixedLayer(self.keys[index], self.values[index], self.length)


@dataclass(frozen=True, eq=False, kw_only=True)
class FixedCanvas(CanvasCache):
    """A canvas of T tokens, of which `prefix` (1, T) holds all ids: those before the block, it, and those ahead.

    The buffers may be longer: a look at all of the canvas sees what it reads, a look at the block what is kept.
    """

    start: Tensor  # () column of the block
    stop: Tensor  # () columns from here on are padding
    block_size: int

    @property
    def length(self) -> int:
        return cast(int, self.start)

    def reading(self, block: Tensor, behind: int) -> tuple[Tensor, int]:
        """Where no text stands before the block, the first column is read twice, once in its place."""
        if not self.warm:
            return self.prefix, 0
        begin = cast(int, self.start - behind)
        return self.prefix[:, _columns(begin, self.block_size + behind)], begin

    def places(self, start: int, length: int, ids: Tensor) -> Tensor | None:
        return _columns(start, ids.shape[1]) if self.warm else None

    def at(self, start: int) -> Window:
        return FixedWindow(self.buffers, start, 0, self.stop, whole=not self.warm)

    def warmed(self) -> FixedCanvas:
        return self


@dataclass(frozen=True, eq=False)
class FixedWindow(Window):
    """The part of a fixed canvas that is read again, or all of it."""

    stop: Tensor  # ()
    whole: bool

    def check_room(self, length: int) -> None:
        pass

    def mask(self, length: int, block_length: int | None) -> Tensor:
        """All of the text, (1, 1, 1, T)."""
        seen = length if self.whole else self.buffers.keys[0].shape[2]
        return (torch.arange(seen) < self.stop)[None, None, None]

    def layer(self, index: int) -> FixedLayer:
        keys, values = self.buffers.keys[index], self.buffers.values[index]
        return FixedLayer(keys, values, self.start, whole=self.whole)


def _columns(start: int, length: int) -> Tensor:
    return (start + torch.arange(length)).clamp(min=0)
