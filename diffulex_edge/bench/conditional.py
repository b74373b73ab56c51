"""The bound of a continuation, given what stands before it: -log p(y | x) from above, under what a context sees.

Where a context takes blocks at any place (`full`, `canvas`), the continuation is noised as a whole, x visible: LLaDA's
conditional likelihood (arXiv:2502.09992). Where blocks are aligned (`kv`, `memory`), it is noised block by block on the
model's own grid, each given the clean text before it: the chain rule, as block diffusion learns it (arXiv:2503.09573).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffulex_edge.bench.bounds import Reading, Window, by_shape, stratified_counts
from diffulex_edge.diffusion.corruption import Corrupted, exact_count
from diffulex_edge.model.base import NONE, Context, Denoiser
from diffulex_edge.runtime.decode import prefill


@dataclass(frozen=True, kw_only=True)
class Conditional:
    """How a continuation is scored.

    A window's masks hang on the seed and on its given tokens alone (on all of them where none is given): its value is
    the same in any company, and continuations of one length of the same text are compared under the same masks.
    """

    kind: str  # the context
    block_size: int = 32  # tokens of a block, where blocks are aligned
    n_samples: int = 4  # masks drawn for each window, or for each of its blocks
    seed: int = 0
    reading: Reading = Reading()

    @torch.inference_mode()
    def nats(self, denoiser: Denoiser, parts: Sequence[Window]) -> NDArray[np.float64]:
        """Nats (n,) of what each window holds behind its given tokens: unbiased, and exact for one token."""
        aligned = denoiser.begin(self.kind, 1, self.block_size).aligned
        walk = self._by_blocks if aligned else self._whole
        found = np.zeros(len(parts))
        for (length, given), members in by_shape(parts).items():
            rows = max(1, self.reading.batch_tokens // length) if length > given else 0
            for chunk in torch.tensor(members).split(rows) if rows else ():
                chosen = [parts[i] for i in chunk.tolist()]
                x = torch.stack([part.ids for part in chosen])
                found[chunk.numpy()] = walk(denoiser, x, given, [self._chance(part) for part in chosen]).numpy()
        return found

    def _whole(self, denoiser: Denoiser, x: Tensor, given: int, chances: Sequence[torch.Generator]) -> Tensor:
        """Nats (B,) of x (B, T) noised behind `given`; draws stand side by side, each in a row of its own."""
        noised = self._draw(x[:, given:], denoiser.spec.mask_id, chances)
        clean = x.repeat_interleave(len(noised.t) // len(x), 0)
        found = []
        for rows in torch.arange(len(clean)).split(max(1, self.reading.batch_tokens // x.shape[1])):
            context = denoiser.begin(self.kind, len(rows), x.shape[1])
            found.append(self._look(denoiser, _take(noised, rows), clean[rows], context, given))
        return torch.cat(found).view(len(x), -1).mean(1)

    def _by_blocks(self, denoiser: Denoiser, x: Tensor, given: int, chances: Sequence[torch.Generator]) -> Tensor:
        """Nats (B,) of x (B, T), summed over blocks; the text before a block is read once for all its draws."""
        size, length = self.block_size, x.shape[1]
        start = given // size * size
        context = denoiser.begin(self.kind, *x.shape)
        for clean in prefill(x[:, :start], size, denoiser.spec, aligned=True):
            _, context = denoiser(clean, context, rows=NONE)
        found = torch.zeros(len(x), dtype=torch.float64)
        for at in range(start, length, size):
            block, known = x[:, at : at + size], max(given - at, 0)
            noised = self._draw(block[:, known:], denoiser.spec.mask_id, chances)
            draws = torch.arange(len(noised.t)).view(len(x), -1).unbind(1)
            looks = [self._look(denoiser, _take(noised, rows), block, context, known) for rows in draws]
            found += torch.stack(looks).mean(0)
            if at + size < length:
                _, context = denoiser(block, context, rows=NONE)
        return found

    def _look(self, denoiser: Denoiser, noised: Corrupted, x: Tensor, context: Context, given: int) -> Tensor:
        return -self.reading.log_probs(denoiser, noised, x, context, given).sum(1) / noised.t

    def _chance(self, part: Window) -> torch.Generator:
        known = part.ids[: part.given] if part.given else part.ids
        return torch.Generator().manual_seed(zlib.crc32(known.numpy().tobytes(), self.seed))

    def _draw(self, fresh: Tensor, mask_id: int, chances: Sequence[torch.Generator]) -> Corrupted:
        """S draws of each of the fresh tokens (B, L), as rows (B * S, L) in the order (window, draw)."""
        n = self.n_samples if fresh.shape[1] > 1 else 1  # there is one way to hide one token
        found = []
        for row, chance in zip(fresh, chances, strict=True):  # a window's chance is its own
            counts = stratified_counts(1, n, len(row), chance)[0]
            found.append(exact_count(row.expand(n, -1), counts, mask_id, chance))
        xt, masked, t = (torch.cat(parts) for parts in zip(*((d.xt, d.masked, d.t) for d in found), strict=True))
        return Corrupted(xt, masked, t)


def _take(noised: Corrupted, rows: Tensor) -> Corrupted:
    return Corrupted(noised.xt[rows], noised.masked[rows], noised.t[rows])
