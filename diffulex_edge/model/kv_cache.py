"""The static KV cache: buffers of fixed size, written behind `length`. Exact where attention is block-causal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Context, StepLike


@dataclass(frozen=True, eq=False)
class Opening:
    """The first token of a block, decided before the block is looked at. Text that the user gave is left alone."""

    logits: Tensor  # (B, V)
    begun: Tensor  # (B,) bool: rows that have text before the block
    mask_id: int
    fills: bool = True  # False: it waits to be asked, `answer`

    def __call__(self, block: Tensor, banned: Sequence[int]) -> Tensor:
        """The block (B, L) with its first column filled in, greedily; the mask is banned, named or not."""
        if not self.fills:
            return block
        never = torch.tensor([self.mask_id, *banned], device=block.device)
        token = self.logits.index_fill(1, never, -torch.inf).argmax(-1)
        fills = self.begun & (block[:, 0] == self.mask_id)
        return torch.cat((torch.where(fills, token, block[:, 0])[:, None], block[:, 1:]), 1)

    def answer(self, rows: Tensor | None) -> Tensor:
        """The logits of a block of one token, of the rows (B, 1) that are wanted."""
        return self.logits[:, None] if rows is None else self.logits[:, None][rows]


@dataclass(frozen=True, eq=False)
class KVContext:
    """Keys and values of the text before the block, in buffers that all contexts made from one share.

    A denoise call writes its own keys behind `length`, where the next call overwrites them; a commit writes the same
    and moves `length`. So go on from the newest context only; `clone` to fork. Discarding one costs nothing.
    """

    keys: Tensor  # (N, B, H, T, E)
    values: Tensor  # (N, B, H, T, E)
    length: int = 0
    first: Tensor | None = None  # (B,) columns before it are padding
    opening: Opening | None = None  # what the coming block begins with, where that is decided
    exact = True
    aligned = True

    def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
        return block if self.opening is None else self.opening(block, banned)

    def opened(self, opening: Opening | None) -> Self:
        return replace(self, opening=opening)

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Self:
        return self

    def refresh(self, seen: Context, step: StepLike) -> Self:
        return self

    def clone(self) -> Self:
        return replace(self, keys=self.keys.clone(), values=self.values.clone())

    def reach(self, length: int) -> int:
        """Columns that a block of `length` tokens sees."""
        return self.length + length

    def mask(self, length: int, block_length: int | None) -> Tensor | None:
        """What a block of `length` tokens sees of the columns that it reaches (B or 1, 1, L, S + L); None: all."""
        return visible(self.length, length, self.reach(length), block_length, self.first, self.keys.device)

    def layer(self, index: int) -> KVLayer:
        return KVLayer(self.keys[index], self.values[index], self.length)

    def advance(self, length: int) -> Self:
        return replace(self, length=self.length + length)

    def check_room(self, length: int) -> None:
        room(self.keys, self.length, length)


@dataclass(frozen=True, eq=False)
class KVLayer:
    """One layer's view of the buffers."""

    keys: Tensor  # (B, H, T, E)
    values: Tensor  # (B, H, T, E)
    length: int
    beyond: int = 0  # columns behind the written ones that are seen as well

    def put(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes k and v (B, H, L, E) behind `length`; gives all that is seen, (B, H, S + L + beyond, E)."""
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        return self.keys[:, :, : end + self.beyond], self.values[:, :, : end + self.beyond]


def visible(
    start: int, length: int, reach: int, block_length: int | None, first: Tensor | None, device: torch.device
) -> Tensor | None:
    """What `length` tokens from column `start` on see of `reach` columns, (B or 1, 1, L, S + L) of bool; None: all.

    i sees j where i // b >= j // b, and j is real; a padding token sees itself, so that no row is empty.
    """
    if first is None and (block_length is None or start // block_length == (reach - 1) // block_length):
        return None
    positions, columns = torch.arange(start, start + length, device=device), torch.arange(reach, device=device)
    sees = torch.ones(length, reach, dtype=torch.bool, device=device)
    if block_length is not None:
        sees = positions[:, None] // block_length >= columns // block_length
    if first is None:
        return sees[None, None]
    itself = positions[:, None] == columns
    return ((sees & (columns >= first[:, None])[:, None]) | itself)[:, None]


def room(buffer: Tensor, start: int, length: int) -> None:
    """Raises UsageError where `length` columns from `start` on pass the buffer (N, B, H, T, E)."""
    if start + length > buffer.shape[3]:
        raise UsageError(f"{start} + {length} tokens do not fit the cache of {buffer.shape[3]} that begin() made")


def empty_kv(
    n_layers: int, batch_size: int, n_heads: int, length: int, head_dim: int, like: Tensor, first: Tensor | None
) -> KVContext:
    keys = torch.zeros(n_layers, batch_size, n_heads, length, head_dim, dtype=like.dtype, device=like.device)
    return KVContext(keys, torch.zeros_like(keys), first=first)
