"""A token embedding in 8 or 4 bits: rows are looked up as integers, and only those become numbers again.

One form for all uses: eager, and in an exported graph, where it is a look-up, a mask and a product.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.quant.weights import coded


class QuantizedEmbedding(nn.Module):
    """codes (V, D) int8 times scale (V, 1) or (V, D / group); 4 bits: codes (V, D / 2) uint8, two a byte.

    The first half of a row is in the low four bits, each of them above -8, so that halves are joined and not woven.
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.dtype = torch.float32  # of what comes out
        self.bits = 4 if codes.dtype == torch.uint8 else 8
        self.num_embeddings, self.embedding_dim = len(codes), codes.shape[1] * 8 // self.bits

    @classmethod
    def of(cls, weight: Tensor, bits: int, group: int | None = None) -> QuantizedEmbedding:
        """Rounds weight (V, D) to integers symmetric about zero, a scale a row or a group of columns."""
        if weight.shape[1] % (group or 1):
            raise UsageError(f"{group=} does not divide the embedding's width of {weight.shape[1]}: take 8 bits")
        codes, scale = coded(weight, bits, group)
        return cls(pack(codes) if bits == 4 else codes, scale)

    def forward(self, ids: Tensor) -> Tensor:
        """From ids (B, L) to (B, L, D)."""
        codes, scale = F.embedding(ids, self.codes), F.embedding(ids, self.scale).float()
        codes = unpack(codes) if self.bits == 4 else codes.float()
        return (codes.unflatten(-1, (scale.shape[-1], -1)) * scale[..., None]).flatten(-2).to(self.dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> QuantizedEmbedding:
        """A cast is of what comes out: scales keep the type that they were rounded to."""
        self.dtype = fn(torch.zeros(0, dtype=self.dtype, device=self.codes.device)).dtype
        self.codes = fn(self.codes)
        self.scale = fn(self.scale).to(self.scale.dtype)
        return self

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, bits={self.bits}"


def pack(codes: Tensor) -> Tensor:
    """Integers from -8 to 7 (..., D) two a byte, (..., D / 2) uint8: the first half of them in the low four bits."""
    low, high = (codes + 8).to(torch.uint8).chunk(2, -1)
    return low | (high << 4)


def unpack(packed: Tensor) -> Tensor:
    """The integers (..., D) of `pack`, as fp32: shifts are not among the operators that export knows."""
    both = packed.float()
    high = (both / 16).floor()
    return torch.cat((both - 16 * high, high), -1) - 8
