"""The backup: a bidirectional Transformer denoiser (seed 002, section 5), the control that EcoHybrid has to beat.

Rotary positions in place of learned ones, so that a longer text than the training length is not an index error. With a
`block_length` attention is block-causal on the grid of absolute positions, and a static KV cache is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Context, DenoiserSpec
from diffulex_edge.model.context import FullContext, empty_full
from diffulex_edge.model.kv_cache import KVContext, KVLayer, empty_kv
from diffulex_edge.model.layers import Ends, SwiGLU, heads, merge, norm, rotate, turns, zero_linear
from diffulex_edge.model.stack import run


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    vocab_size: int = 8192
    mask_id: int = 3
    d_model: int = 256
    n_layers: int = 6
    n_heads: int = 8
    head_dim: int = 32
    d_ff: int = 704  # inner width of the gated feed-forward
    block_length: int | None = None  # tokens; None: every token attends to every other
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


class Flow(NamedTuple):
    """What goes through the layers."""

    tokens: Tensor  # (B, L, D)
    turn: Tensor  # (2, L, E / 2) rotary, of the positions
    mask: Tensor | None  # (B or 1, 1, L, S + L); None: all attend to all


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
        h, turn, mask = flow
        q, k, v = (heads(y, self.n_heads) for y in self.qkv(self.attn_norm(h)).chunk(3, -1))
        q, k = rotate(q, turn), rotate(k, turn)
        if memory is not None:
            k, v = memory.put(k, v)
        h = h + self.out(merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))
        return Flow(h + self.ff(self.ff_norm(h)), turn, mask), None


class TransformerDenoiser(nn.Module):
    """A Denoiser. Contexts: `kv` where attention is block-causal, else `canvas`; and `full`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.ends = Ends(config.vocab_size, config.d_model, config.timesteps)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.n_layers))
        self._starts: dict[str, Callable[[int, int, Tensor | None], Context]] = {"full": self._full}
        if config.block_length is None:
            self._starts = {"canvas": self._canvas, **self._starts}
        else:
            self._starts = {"kv": self._kv, **self._starts}
        self.spec = DenoiserSpec(
            vocab_size=config.vocab_size,
            mask_id=config.mask_id,
            n_layers=config.n_layers,
            block_length=config.block_length,
            contexts=dict.fromkeys(self._starts),
            trained_modes=config.trained_modes,
            mask_schedule=config.mask_schedule,
            sample_steps=config.sample_steps,
        )

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Context:
        if kind not in self._starts:
            raise UsageError(f"context {kind!r} is not one of this Transformer's: {', '.join(self._starts)}")
        return self._starts[kind](batch_size, length, first)

    def forward(
        self,
        block: Tensor,
        context: Context | None = None,
        *,
        t: Tensor | None = None,
        depth: int | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Context]:
        context = self._full(len(block), 0, None) if context is None else context
        remembering = rows is not None and not rows.numel()
        if isinstance(context, KVContext):
            return self._with_cache(block, context, t, depth, rows, remembering)
        if not isinstance(context, FullContext):
            raise UsageError(f"{type(context).__name__} is not a context of this Transformer")
        if remembering:
            return self.ends.no_logits(), context.append(block)
        ids, window = context.spread(block)
        h = self._run(ids, [None] * len(self.layers), t, depth, 0, context.real(ids.shape[1]))
        return self.ends.logits(h[:, window], rows), context

    def _with_cache(
        self,
        block: Tensor,
        context: KVContext,
        t: Tensor | None,
        depth: int | None,
        rows: Tensor | None,
        remembering: bool,
    ) -> tuple[Tensor, Context]:
        context.check_room(block.shape[1])
        columns = torch.arange(context.length + block.shape[1], device=block.device)
        real = None if context.first is None else columns >= context.first[:, None]
        cache = [context.layer(i) for i in range(len(self.layers))]
        if remembering:
            t = torch.zeros(len(block), device=block.device)
        h = self._run(block, cache, t, None if remembering else depth, context.length, real)
        if remembering:
            return self.ends.no_logits(), context.advance(block.shape[1])
        return self.ends.logits(h, rows), context

    def _run(
        self, ids: Tensor, cache: list[Any], t: Tensor | None, depth: int | None, start: int, real: Tensor | None
    ) -> Tensor:
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)
        mask = self._mask(positions, real)
        flow, _ = run(
            self.layers, Flow(self.ends.embed(ids, t), turns(positions, self.config.head_dim), mask), cache, depth
        )
        return flow.tokens

    def _mask(self, positions: Tensor, real: Tensor | None) -> Tensor | None:
        """i sees j where i // b >= j // b, and j is real; a padding token sees itself, so that no row is empty."""
        block = self.config.block_length
        if block is None and real is None:
            return None
        columns = torch.arange(int(positions[-1]) + 1, device=positions.device)
        if block is None:
            sees = torch.ones(len(positions), len(columns), dtype=torch.bool, device=positions.device)
        else:
            sees = positions[:, None] // block >= columns // block
        if real is None:
            return sees[None, None]
        itself = positions[:, None] == columns
        return ((sees & real[:, None]) | itself)[:, None]

    def _full(self, batch_size: int, length: int, first: Tensor | None) -> FullContext:
        return empty_full(batch_size, self.ends.head_bias.device, first=first)

    def _canvas(self, batch_size: int, length: int, first: Tensor | None) -> FullContext:
        return empty_full(batch_size, self.ends.head_bias.device, first=first, canvas=True)

    def _kv(self, batch_size: int, length: int, first: Tensor | None) -> KVContext:
        c = self.config
        return empty_kv(c.n_layers, batch_size, c.n_heads, length, c.head_dim, self.ends.tokens.weight, first)
