"""The backup: a bidirectional Transformer denoiser (seed 002, section 5), the control that EcoHybrid has to beat.

Rotary positions in place of learned ones, so that a longer text than the training length is not an index error. With a
`block_length` attention is block-causal on the grid of absolute positions, and a static KV cache is exact. Blocks of
one token make it the causal Transformer that everybody else runs: state i - 1 speaks about token i.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from diffulex_edge.errors import UsageError
from diffulex_edge.model.attention import (
    AttentionDenoiser,
    AttentionFacts,
    Flow,
    Shift,
    ShiftedInBlock,
    Unshifted,
    contexts,
)
from diffulex_edge.model.base import DenoiserSpec
from diffulex_edge.model.kv_cache import KVLayer
from diffulex_edge.model.layers import Ends, SwiGLU, attend, heads, merge, norm, rotate, zero_linear


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    vocab_size: int = 8192
    mask_id: int = 3
    d_model: int = 256
    n_layers: int = 6
    n_heads: int = 8
    head_dim: int = 32
    d_ff: int = 704  # inner width of the gated feed-forward
    block_length: int | None = None  # tokens; None: every token attends to every other; 1: autoregressive
    timesteps: int | None = None  # None: not conditioned on the noise level
    # The rest is written by the trainer: what the weights were trained to do, and how it is meant to be used.
    trained_modes: tuple[str, ...] = ()
    mask_schedule: str = DenoiserSpec.mask_schedule
    sample_steps: int | None = DenoiserSpec.sample_steps

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "head_dim", "d_ff"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        if self.head_dim % 2:
            raise UsageError(f"head_dim={self.head_dim} must be even: rotary positions turn pairs")
        if not 0 <= self.mask_id < self.vocab_size:
            raise UsageError(f"mask_id={self.mask_id} is not below vocab_size={self.vocab_size}")
        for name in ("block_length", "timesteps", "sample_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")

    @classmethod
    def matched(cls, eco: Any, *, d_ff: int | None = None) -> Self:
        """The Transformer of EcoHybrid's width and depth, with d_ff (unless given) chosen to match its parameters."""
        inner = eco.n_heads * eco.head_dim
        slots = eco.memory_slots * eco.d_model
        eco_layer = 8 * eco.d_model * inner + 3 * eco.d_model * eco.d_ff + 2 * eco.d_model**2 + slots
        eco_layer += len(eco.local_attn_layers) * 4 * eco.d_model * inner // eco.n_layers
        n_heads = max(1, eco.d_model // 32)
        spare = eco_layer - 4 * eco.d_model * n_heads * 32
        return cls(
            vocab_size=eco.vocab_size,
            mask_id=eco.mask_id,
            d_model=eco.d_model,
            n_layers=eco.n_layers,
            n_heads=n_heads,
            d_ff=d_ff or max(8, spare // (3 * eco.d_model)),
            timesteps=eco.timesteps,
        )


class TransformerLayer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        inner = config.n_heads * config.head_dim
        self.n_heads = config.n_heads
        self.attn_norm, self.ff_norm = norm(config.d_model), norm(config.d_model)
        self.qkv = nn.Linear(config.d_model, 3 * inner, bias=False)
        self.out = zero_linear(inner, config.d_model)
        self.ff = SwiGLU(config.d_model, config.d_ff)

    def forward(self, flow: Flow, memory: KVLayer | None) -> tuple[Flow, None]:
        h, turn, mask, keep = flow
        q, k, v = (heads(y, self.n_heads) for y in self.qkv(self.attn_norm(h)).chunk(3, -1))
        q, k = rotate(q, turn), rotate(k, turn)
        if memory is not None:
            k, v = memory.put(k, v)
        h = h + self.out(merge(attend(q, k, v, mask)))
        return Flow(h + self.ff(self.ff_norm(h), keep), turn, mask, keep), None


class TransformerDenoiser(AttentionDenoiser):
    """A Denoiser. Contexts: `kv` where attention is block-causal, else `canvas` and its caches; and `full`."""

    def __init__(self, config: TransformerConfig) -> None:
        spec = DenoiserSpec(
            vocab_size=config.vocab_size,
            mask_id=config.mask_id,
            n_layers=config.n_layers,
            block_length=config.block_length,
            contexts=contexts(config.block_length),
            trained_modes=config.trained_modes,
            mask_schedule=config.mask_schedule,
            sample_steps=config.sample_steps,
            autoregressive=config.block_length == 1,
        )
        shift: Shift = ShiftedInBlock() if spec.autoregressive else Unshifted()
        facts = AttentionFacts(spec=spec, n_kv_heads=config.n_heads, head_dim=config.head_dim, shift=shift)
        ends = Ends(config.vocab_size, config.d_model, config.timesteps)
        super().__init__(facts, ends, [TransformerLayer(config) for _ in range(config.n_layers)])
        self.config = config
