"""EcoHybrid's slots: how a query reads them beside a bank, and where they start at a reverse step that follows another.

It knows no layers and no contexts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffulex_edge.model.layers import SwiGLU, attend, heads, merge, norm, zero_linear


class SlotAttention(nn.Module):
    """Queries read [live ; bank], both normed first and projected alike."""

    def __init__(self, width: int, inner: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q, self.kv = nn.Linear(width, inner, bias=False), nn.Linear(width, 2 * inner, bias=False)
        self.out = zero_linear(inner, width)

    def forward(self, query: Tensor, live: Tensor, bank: Tensor, mask: Tensor | None = None) -> Tensor:
        """query (B, Q, D), live (B, L, D), bank (B or 1, M, 2 HE) projected, mask of the keys (B, 1, 1, L + M)."""
        kv = self.kv(live)
        kv = torch.cat((kv, bank.to(kv.dtype).expand(len(kv), -1, -1)), 1)
        k, v = heads(kv, 2 * self.n_heads).chunk(2, 1)
        return self.out(merge(attend(heads(self.q(query), self.n_heads), k, v, mask)))


class WarmStart(nn.Module):
    """LN(FF(slots)): what the slots (B, M, D) that a reverse step ended with add to those that the next starts from.

    Latent self-conditioning of RIN, arXiv:2212.11972: the norm's scale starts at zero, so that a new one adds nothing.
    The feed-forward may not end in zeros as well, or neither would ever learn. Steps against memory alone carry slots,
    and remembering starts afresh: what is remembered does not depend on how the block came about.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.ff, self.norm = SwiGLU(width, inner), norm(width)
        self.ff.down.reset_parameters()
        nn.init.zeros_(self.norm.weight)

    def forward(self, slots: Tensor) -> Tensor:
        found: Tensor = self.norm(self.ff(slots))
        return found
