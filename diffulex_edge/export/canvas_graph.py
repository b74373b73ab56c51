"""What is exported of attention that looks everywhere: looks at a canvas, and at a block against what one left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge.export.graph import ASKED, COUNT, START, STOP, THRESHOLD, Method, Port, kv_buffers, kv_cache
from diffulex_edge.export.reveal import reveal
from diffulex_edge.model.fixed import FixedCanvas


class CanvasGraph(nn.Module):
    """`look` reads a canvas of T tokens, all of it, and keeps keys and values. `look_of_N` reads one of N, a bucket.

    `denoise` reads the block alone against what is kept, Fast-dLLM's dual cache (arXiv:2505.22618); the exact way is to
    look at each step. `stop` is the column behind the text: what lies there is padding.
    """

    context = "canvas"

    def __init__(
        self, denoiser: Any, block_size: int, banned: Sequence[int], max_length: int, shorter: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.denoiser, self.block_size, self.banned, self.max_length = denoiser, block_size, banned, max_length
        self.buckets = sorted({*shorter, max_length})
        kv_buffers(self, max_length)

    def methods(self, depths: Sequence[int]) -> Iterator[Method]:
        for length in self.buckets:
            suffix = "" if length == self.max_length else f"_of_{length}"
            yield self._revealing(f"look{suffix}", length, warm=False)
            yield self._saying(f"logits{suffix}", length, warm=False)
        for depth in (None, *depths):
            name = "denoise" if depth is None else f"denoise_{depth}"
            yield self._revealing(name, self.max_length, warm=True, depth=depth)
        yield self._saying("logits_cached", self.max_length, warm=True)

    def _revealing(self, name: str, length: int, *, warm: bool, depth: int | None = None) -> Method:
        block = Port("block", "int64", (1, self.block_size))
        asks = (Port("canvas", "int64", (1, length)), START, STOP, ASKED, COUNT, THRESHOLD)
        seen = (block, Port("probability", "float32", block.shape))
        return Method(name, partial(self.reveal, warm=warm, depth=depth), asks, seen, keeps=not warm)

    def _saying(self, name: str, length: int, *, warm: bool) -> Method:
        logits = Port("logits", "float32", (1, self.block_size, self.denoiser.spec.vocab_size))
        where = (Port("canvas", "int64", (1, length)), START, STOP)
        return Method(name, partial(self.logits, warm=warm), where, (logits,), keeps=not warm)

    def logits(self, canvas: Tensor, start: Tensor, stop: Tensor, *, warm: bool, depth: int | None = None) -> Tensor:
        buffers = kv_cache(self, start)
        context = FixedCanvas(buffers, canvas, dual=True, warm=warm, start=start, stop=stop, block_size=self.block_size)
        return self.denoiser(self._block(canvas, start), context, depth=depth)[0]

    def reveal(
        self,
        canvas: Tensor,
        start: Tensor,
        stop: Tensor,
        asked: Tensor,
        count: Tensor,
        threshold: Tensor,
        *,
        warm: bool,
        depth: int | None,
    ) -> tuple[Tensor, Tensor]:
        logits = self.logits(canvas, start, stop, warm=warm, depth=depth)
        mask_id = self.denoiser.spec.mask_id
        return reveal(logits, self._block(canvas, start), mask_id, self.banned, asked, count, threshold)

    def remember(self, block: Tensor, canvas: Tensor, start: Tensor, stop: Tensor) -> None:
        self.logits(canvas, start, stop, warm=False)

    def _block(self, canvas: Tensor, start: Tensor) -> Tensor:
        return canvas[:, start + torch.arange(self.block_size)]
