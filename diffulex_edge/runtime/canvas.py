"""Prompts of different lengths laid out as one canvas (B, W): what is given, what is asked for, where blocks begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.machine import need_memory
from diffulex_edge.model.base import DenoiserSpec
from diffulex_edge.runtime.plan import Plan

Prompts = Tensor | Sequence[Sequence[int]]  # (B, S), or a list of ids for each row


@dataclass(frozen=True, eq=False)
class Canvas:
    """Rows are padded on the left. Padding holds the mask id, but nobody asks for it."""

    ids: Tensor  # (B, W); the mask id where nothing is known
    asked: Tensor  # (B, W) bool: to be filled, or filled already
    first: Tensor  # (B,) column of each row's first token
    end: Tensor  # (B,) column behind its last
    start: int  # column of the first block in which anything is asked for

    def put(self, start: int, block: Tensor, stop_ids: Sequence[int]) -> Canvas:
        """The canvas with a finished block (B, L) in it. A row ends behind the first stop id that was filled in."""
        here = slice(start, start + block.shape[1])
        ids = torch.cat((self.ids[:, :start], block, self.ids[:, here.stop :]), 1)
        stops = self.asked[:, here] & torch.isin(block, torch.tensor(stop_ids, dtype=torch.long, device=block.device))
        ends = torch.where(stops.any(1), start + stops.long().argmax(1) + 1, self.end)
        return replace(self, ids=ids).ending(ends)

    def ending(self, ends: Tensor) -> Canvas:
        """The canvas whose rows end at these columns (B,), where they did not end before."""
        ends = torch.minimum(ends, self.end)
        columns = torch.arange(self.ids.shape[1], device=self.ids.device)
        return replace(self, asked=self.asked & (columns < ends[:, None]), end=ends)

    def filled(self) -> list[list[int]]:
        """What each row was asked for, in order, up to and with its stop id."""
        return [ids[asked].tolist() for ids, asked in zip(self.ids, self.asked, strict=True)]

    def texts(self) -> list[list[int]]:
        """Each row from its first token to its end, without padding."""
        bounds = zip(self.ids, self.first.tolist(), self.end.tolist(), strict=True)
        return [ids[first:end].tolist() for ids, first, end in bounds]


def lay_out(prompts: Prompts, plan: Plan, spec: DenoiserSpec, *, aligned: bool, device: torch.device | str) -> Canvas:
    """Appends `max_new_tokens` masks to each row that has none, and pads on the left.

    Aligned: by whole blocks, so that the first block with something to fill is the same one in each row, and begins at
    a multiple of the block size counted from the row's own first token; the tail of a prompt shares that block.
    Else: so that all rows end at the same column, and so, without masks of their own, all prompts.
    """
    rows = [_row(prompt, plan, spec) for prompt in prompts]
    if not rows:
        raise UsageError("there are no prompts: at least one row is needed, be it empty")
    firsts = [row.index(spec.mask_id) if spec.mask_id in row else len(row) for row in rows]  # first masked position
    size = plan.block_size
    if aligned:
        whole = max(first // size for first in firsts)
        pads = [(whole - first // size) * size for first in firsts]
        width = -(-max(pad + len(row) for pad, row in zip(pads, rows, strict=True)) // size) * size
        start = whole * size
    else:
        width = max(len(row) for row in rows)
        pads = [width - len(row) for row in rows]
        start = min(pad + first for pad, first in zip(pads, firsts, strict=True))
    ids = torch.tensor(
        [
            [spec.mask_id] * pad + row + [spec.mask_id] * (width - pad - len(row))
            for pad, row in zip(pads, rows, strict=True)
        ],
        dtype=torch.long,
        device=device,
    )
    first = torch.tensor(pads, device=device)
    end = first + torch.tensor([len(row) for row in rows], device=device)
    columns = torch.arange(width, device=device)
    asked = (ids == spec.mask_id) & (columns >= first[:, None]) & (columns < end[:, None])
    return Canvas(ids, asked, first, end, start)


def check_memory(prompts: Prompts, plan: Plan, spec: DenoiserSpec) -> None:
    """Raises ResourceError where a block's logits, and the samplers' copies of them, cannot fit into memory."""
    masks = [sum(int(token) == spec.mask_id for token in prompt) or plan.max_new_tokens for prompt in prompts]
    hidden = sum(min(n, plan.block_size) for n in masks)
    tokens = sum(map(len, prompts)) + sum(masks)
    need_memory(64.0 * (hidden * spec.vocab_size + tokens), f"decoding {tokens:,} tokens, {hidden:,} at once,")


def _row(prompt: Tensor | Sequence[int], plan: Plan, spec: DenoiserSpec) -> list[int]:
    row = [int(token) for token in prompt]
    wrong = [token for token in row if not 0 <= token < spec.vocab_size]
    if wrong:
        raise UsageError(f"the prompt holds the id {wrong[0]}; the model's vocabulary has {spec.vocab_size} ids")
    return row if spec.mask_id in row else row + [spec.mask_id] * plan.max_new_tokens
