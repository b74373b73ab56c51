"""The network that the open families share: RMSNorm, rotary positions, grouped queries, SwiGLU.

A family is a config in its own words, the numbers of `LlamaSizes`, a shift, and what published folders of it look like.
Products with one input are one product (query, key and value; gate and up), so a published tensor is a part of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.model.attention import AttentionFacts, Flow, Shift, contexts
from diffulex_edge.model.base import DenoiserSpec
from diffulex_edge.model.kv_cache import KVLayer
from diffulex_edge.model.layers import SwiGLU, attend, head_of, heads, merge, rotate


@dataclass(frozen=True, kw_only=True)
class LlamaSizes:
    """What the network needs to know of a family."""

    vocab_size: int  # width of the logits
    mask_id: int
    width: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    eps: float  # of the norms
    rope_theta: float
    qkv_bias: bool
    head_norms: bool  # queries and keys are normed, head by head
    tied: bool  # the head is the embedding
    block_length: int | None  # tokens; None: attention looks everywhere
    max_length: int  # tokens
    stop_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "max_length"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("eps", "rope_theta"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name}={getattr(self, name)} must be above 0 and finite")
        if self.n_heads % self.n_kv_heads:
            raise UsageError(f"{self.n_heads} heads cannot share {self.n_kv_heads} key-value heads evenly")
        if self.head_dim % 2:
            raise UsageError(f"head_dim={self.head_dim} must be even: rotary positions turn pairs")
        if not 0 <= self.mask_id < self.vocab_size:
            raise UsageError(f"mask id {self.mask_id} is not below vocab_size={self.vocab_size}")
        if self.block_length is not None and self.block_length < 1:
            raise UsageError(f"block length {self.block_length} must be at least 1")


def fitting(mask_id: int, vocab_size: int) -> int:
    """A family's mask id, or the last id of a vocabulary too small for it."""
    return min(mask_id, vocab_size - 1)


def ids_of(eos: int | tuple[int, ...], vocab_size: int) -> tuple[int, ...]:
    """The ids that end a text, those beyond a small vocabulary left out."""
    return tuple(i for i in (eos if isinstance(eos, tuple) else (eos,)) if i < vocab_size)


class LlamaEnds(nn.Module):
    """Token embedding, final norm and head."""

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.tokens = nn.Embedding(sizes.vocab_size, sizes.width)
        self.norm = nn.RMSNorm(sizes.width, eps=sizes.eps)
        self.head = None if sizes.tied else nn.Linear(sizes.width, sizes.vocab_size, bias=False)

    def embed(self, ids: Tensor, t: Tensor | None) -> Tensor:
        return self.tokens(ids)

    def logits(self, x: Tensor, rows: Tensor | None) -> Tensor:
        """From (B, L, D) to logits: (n, V) for the rows asked for, (B, L, V) for None."""
        if rows is not None:
            x = x[rows]
        x = self.norm(x)
        return F.linear(x, self.tokens.weight) if self.head is None else self.head(x)

    def no_logits(self) -> Tensor:
        return self.norm.weight.new_zeros(0, self.tokens.num_embeddings)

    def untie(self) -> None:
        """Gives the head a layer of its own, on the embedding's weights: for what changes the one and not the other."""
        if self.head is None:
            self.head = head_of(self.tokens)


class LlamaLayer(nn.Module):
    """Attention and feed-forward, each behind its norm; k and v are written into the memory where there is one."""

    def __init__(self, sizes: LlamaSizes) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = sizes.n_heads, sizes.n_kv_heads
        inner, inner_kv = sizes.n_heads * sizes.head_dim, sizes.n_kv_heads * sizes.head_dim
        self.widths = (inner, inner_kv, inner_kv)
        self.attn_norm, self.ff_norm = (nn.RMSNorm(sizes.width, eps=sizes.eps) for _ in range(2))
        self.qkv = nn.Linear(sizes.width, sum(self.widths), bias=sizes.qkv_bias)
        self.q_norm, self.k_norm = (
            nn.RMSNorm(sizes.head_dim, eps=sizes.eps) if sizes.head_norms else nn.Identity() for _ in range(2)
        )
        self.out = nn.Linear(inner, sizes.width, bias=False)
        self.ff = SwiGLU(sizes.width, sizes.d_ff)

    def forward(self, flow: Flow, memory: KVLayer | None) -> tuple[Flow, None]:
        h, turn, mask, keep = flow
        q, k, v = self.qkv(self.attn_norm(h)).split(self.widths, -1)
        q, k, v = heads(q, self.n_heads), heads(k, self.n_kv_heads), heads(v, self.n_kv_heads)
        q, k = rotate(self.q_norm(q), turn), rotate(self.k_norm(k), turn)
        if memory is not None:
            k, v = memory.put(k, v)
        h = h + self.out(merge(attend(q, k, v, mask)))
        return Flow(h + self.ff(self.ff_norm(h), keep), turn, mask, keep), None


def network(sizes: LlamaSizes, shift: Shift) -> tuple[AttentionFacts, LlamaEnds, list[Any]]:
    """What an AttentionDenoiser is made of, with random weights of deviation 0.02."""
    spec = DenoiserSpec(
        vocab_size=sizes.vocab_size,
        mask_id=sizes.mask_id,
        n_layers=sizes.n_layers,
        block_length=sizes.block_length,
        contexts=contexts(sizes.block_length, sizes.max_length),
        trained_modes=(),
        stop_ids=sizes.stop_ids,
    )
    facts = AttentionFacts(
        spec=spec,
        n_kv_heads=sizes.n_kv_heads,
        head_dim=sizes.head_dim,
        rope_theta=sizes.rope_theta,
        shift=shift,
    )
    ends, layers = LlamaEnds(sizes), [LlamaLayer(sizes) for _ in range(sizes.n_layers)]
    for part in (ends, *layers):
        part.apply(_initialise)
    return facts, ends, layers


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
