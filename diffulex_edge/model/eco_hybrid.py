"""EcoHybrid: local mixing for detail, a few memory slots for the whole (seed 002), and frozen context (seed 000).

Each layer: tokens mix with their neighbours; slots read the tokens; tokens read the slots; feed-forward. No token
attends to a far token, so a layer costs O(L). Nothing knows an absolute position, so no text is too long.

Frozen context: a bank of M slots a layer holds what was written by the blocks before; slots and tokens read it beside
the live slots. A clean pass over a finished block updates the bank, m_{k+1} = U(m_k, y_k), by default by the gate of
Block-Recurrent Transformers, arXiv:2203.07852, and leaves a halo of the last activations for the local mixing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Context, DenoiserSpec, Exit
from diffulex_edge.model.context import FullContext, LayerMemory, MemoryContext, empty_full
from diffulex_edge.model.layers import Ends, LocalAttention, ShortConv, SwiGLU, norm
from diffulex_edge.model.memory_update import UPDATES, Gated, MemoryUpdate
from diffulex_edge.model.slots import SlotAttention, WarmStart
from diffulex_edge.model.soft_exit import Keep, Within
from diffulex_edge.model.stack import Look, run


@dataclass(frozen=True, kw_only=True)
class EcoHybridConfig:
    vocab_size: int = 8192
    mask_id: int = 3
    d_model: int = 256
    n_layers: int = 6
    n_heads: int = 4
    head_dim: int = 32  # width of one head of the slot and local attention
    d_ff: int = 512  # inner width of the gated feed-forward
    memory_slots: int = 16
    memory_update: str = "gated"  # or accumulate: the memories of the last memory_blocks blocks, kept as they were
    memory_blocks: int = 4  # where memory accumulates
    memory_timescales: tuple[float, ...] = ()  # where it is gated: shares of the gate, slot by slot in turn; none: 1
    latent_self_cond: bool = False  # block_frozen alone: slots start from those of the reverse step before
    conv_kernel: int = 7  # tokens, odd
    local_attn_layers: tuple[int, ...] = ()  # layers that mix by exact local attention instead of convolution
    local_attn_window: int = 32  # tokens on either side
    timesteps: int | None = None  # None: not conditioned on the noise level
    # The rest is written by the trainer: what the weights were trained to do, and how it is meant to be used.
    trained_modes: tuple[str, ...] = ()
    mask_schedule: str = DenoiserSpec.mask_schedule
    sample_steps: int | None = DenoiserSpec.sample_steps

    def __post_init__(self) -> None:
        positive = (
            "vocab_size",
            "d_model",
            "n_layers",
            "n_heads",
            "head_dim",
            "d_ff",
            "memory_slots",
            "memory_blocks",
            "local_attn_window",
        )
        for name in positive:
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        if self.conv_kernel < 1 or self.conv_kernel % 2 == 0:
            raise UsageError(f"conv_kernel={self.conv_kernel} must be odd: as many tokens on the left as on the right")
        if not 0 <= self.mask_id < self.vocab_size:
            raise UsageError(f"mask_id={self.mask_id} is not below vocab_size={self.vocab_size}")
        if any(not 0 <= i < self.n_layers for i in self.local_attn_layers):
            raise UsageError(
                f"local_attn_layers={self.local_attn_layers} names a layer beyond n_layers={self.n_layers}"
            )
        for name in ("timesteps", "sample_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        self._check_memory()

    def _check_memory(self) -> None:
        if self.memory_update not in UPDATES:
            raise UsageError(f"memory_update={self.memory_update!r} is not one of {', '.join(UPDATES)}")
        scales = self.memory_timescales
        if any(not 0 < z <= 1 for z in scales):
            raise UsageError(f"memory_timescales={scales} holds a share of the gate that is not above 0 and at most 1")
        if scales and UPDATES[self.memory_update] is not Gated:
            raise UsageError(
                f"memory_timescales={scales} scale a gate, which memory_update={self.memory_update!r} has not"
            )

    @classmethod
    def matched(cls, eco: Self, *, d_ff: int | None = None) -> Self:
        """Itself: recipes are written for EcoHybrid, and other families take their size from it."""
        return eco


class Flow(NamedTuple):
    """What goes through the layers."""

    tokens: Tensor  # (B, L, D)
    slots: Tensor  # (B, M, D)
    real: Tensor | None  # (B, L) columns that hold text; None: all
    keep: Keep | None = None  # what an early exit has left of the feed-forward


class Recall(NamedTuple):
    """What a layer makes of its memory before it looks at a block: the same at every reverse step."""

    write: Tensor  # (B or 1, M or J * M, 2 HE) keys and values of the bank, as the slots read it
    read: Tensor  # (B or 1, M or J * M, 2 HE) and as the tokens do
    halo: Tensor | None  # (B, W, .) what the local mixing wants of it; None: there was no text
    halo_real: Tensor | None  # (B, W) columns of it that hold text


class Saw(NamedTuple):
    """What a layer can remember of a clean block."""

    slots: Tensor  # (B, M, D)
    mixed: Tensor  # (B, L, D) input of the local mixing


class EcoLayer(nn.Module):
    def __init__(self, config: EcoHybridConfig, index: int) -> None:
        super().__init__()
        width, inner = config.d_model, config.n_heads * config.head_dim
        self.local_norm, self.read_norm, self.write_norm, self.ff_norm = (norm(width) for _ in range(4))
        self.slot_norm, self.live_norm, self.bank_norm = (norm(width) for _ in range(3))
        self.local: ShortConv | LocalAttention = (
            LocalAttention(width, inner, config.n_heads, config.local_attn_window)
            if index in config.local_attn_layers
            else ShortConv(width, config.conv_kernel)
        )
        self.write = SlotAttention(width, inner, config.n_heads)  # memory <- tokens
        self.read = SlotAttention(width, inner, config.n_heads)  # tokens <- memory
        self.ff = SwiGLU(width, config.d_ff)
        self.bank0 = nn.Parameter(torch.randn(config.memory_slots, width))
        self.gate: MemoryUpdate = UPDATES[config.memory_update](config)  # its name in checkpoints, whichever it is

    def recall(self, memory: LayerMemory, seen: Tensor | None) -> Recall:
        """seen (B,): tokens behind the halo; None: there is no text before."""
        bank = self.bank_norm(memory.bank)
        write, read = self.write.kv(bank), self.read.kv(bank)
        if seen is None:
            return Recall(write, read, None, None)
        real = torch.arange(memory.halo.shape[1], 0, -1, device=seen.device) <= seen[:, None]
        return Recall(write, read, self.local.recall(memory.halo), real)

    def forward(self, flow: Flow, memory: Recall) -> tuple[Flow, Saw]:
        h, slots, real, keep = flow
        mixed = self.local_norm(h)
        if real is not None:
            mixed = mixed * real[..., None]
        h = h + self.local(mixed, memory.halo, memory.halo_real, real)
        mask = None if real is None else F.pad(real, (0, memory.write.shape[1]), value=True)[:, None, None]
        slots = slots + self.write(self.slot_norm(slots), self.write_norm(h), memory.write, mask)
        h = h + self.read(self.read_norm(h), self.live_norm(slots), memory.read)
        h = h + self.ff(self.ff_norm(h), keep)
        return Flow(h, slots, real, keep), Saw(slots, mixed)

    def remember(self, memory: LayerMemory, saw: Saw) -> LayerMemory:
        """U; and the halo moves on."""
        bank = self.gate.update(memory.bank, self.live_norm(saw.slots), self.bank_norm)
        halo = torch.cat((memory.halo, saw.mixed), 1)[:, -self.local.reach :] if self.local.reach else memory.halo
        return LayerMemory(bank, halo)

    def start(self, batch_size: int) -> LayerMemory:
        """No text yet: the learned bank, and a halo of nothing."""
        halo = self.bank0.new_zeros(batch_size, self.local.reach, self.bank0.shape[1])
        return LayerMemory(self.gate.start(self.bank0).expand(batch_size, -1, -1), halo)


class EcoHybrid(nn.Module):
    """A Denoiser. Contexts: `memory` (constant size), `canvas` and `full` (the ids themselves)."""

    layers: Any  # nn.ModuleList of EcoLayer

    def __init__(self, config: EcoHybridConfig) -> None:
        super().__init__()
        self.config = config
        self.ends = Ends(config.vocab_size, config.d_model, config.timesteps)
        self.slots0 = nn.Parameter(torch.randn(config.memory_slots, config.d_model))
        self.layers = nn.ModuleList(EcoLayer(config, i) for i in range(config.n_layers))
        self.warm = WarmStart(config.d_model, config.d_ff) if config.latent_self_cond else None
        self.run_layers = run
        self.spec = DenoiserSpec(
            vocab_size=config.vocab_size,
            mask_id=config.mask_id,
            n_layers=config.n_layers,
            block_length=None,
            contexts={"memory": None, "canvas": None, "full": None},
            trained_modes=config.trained_modes,
            mask_schedule=config.mask_schedule,
            sample_steps=config.sample_steps,
            carries=config.latent_self_cond,
        )

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Context:
        starts: dict[str, Callable[[int, Tensor | None], Context]]
        starts = {"memory": self._memory, "canvas": partial(self._ids, canvas=True), "full": self._ids}
        if kind not in starts:
            raise UsageError(f"context {kind!r} is not one of EcoHybrid's: {', '.join(starts)}")
        return starts[kind](batch_size, first)

    def forward(
        self,
        block: Tensor,
        context: Context | None = None,
        *,
        t: Tensor | None = None,
        depth: int | None = None,
        exit: Exit | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Context]:
        context = self._ids(block.shape[0]) if context is None else context
        if isinstance(context, MemoryContext):
            return self._with_memory(block, context, Look(t, depth, exit), rows)
        if not isinstance(context, FullContext):
            raise UsageError(f"{type(context).__name__} is not a context of EcoHybrid")
        if rows is not None and not rows.numel():
            return self.ends.no_logits(), context.append(block)
        ids, window = context.spread(block)
        start = [layer.recall(layer.start(1), None) for layer in self.layers]
        look = Look(t, depth, exit and Within(exit, lambda x: x[:, window]))
        flow = self._flow(ids, look.t, context.real(ids.shape[1]))
        flow, _ = run(self.layers, flow, start, look.depth, look.exit)  # never compiled: its length changes
        return self.ends.logits(flow.tokens[:, window], rows), context

    def _with_memory(
        self, block: Tensor, context: MemoryContext, look: Look, rows: Tensor | None
    ) -> tuple[Tensor, MemoryContext]:
        recalled = context.recall(self.layers)
        if rows is None or rows.numel():
            flow = self._flow(block, look.t, None, context.slots)
            flow, _ = self.run_layers(self.layers, flow, recalled, look.depth, look.exit)
            seen = replace(context, slots=flow.slots) if self.spec.carries else context
            return self.ends.logits(flow.tokens, rows), seen
        clean = self._flow(block, torch.zeros(len(block), device=block.device), None)
        _, saw = self.run_layers(self.layers, clean, recalled)
        kept = tuple(layer.remember(old, new) for layer, old, new in zip(self.layers, context.layers, saw, strict=True))
        return self.ends.no_logits(), context.advance(kept, block.shape[1])

    def _flow(self, ids: Tensor, t: Tensor | None, real: Tensor | None, last: Tensor | None = None) -> Flow:
        slots = self.slots0.expand(len(ids), -1, -1)
        if self.warm is not None and last is not None:
            slots = slots + self.warm(last)
        return Flow(self.ends.embed(ids, t), slots, real)

    def _ids(self, batch_size: int, first: Tensor | None = None, *, canvas: bool = False) -> FullContext:
        return empty_full(batch_size, self.slots0.device, first=first, canvas=canvas)

    def _memory(self, batch_size: int, first: Tensor | None) -> MemoryContext:
        seen = torch.zeros(batch_size, dtype=torch.long, device=self.slots0.device)
        return MemoryContext(tuple(layer.start(batch_size) for layer in self.layers), seen, first=first)
