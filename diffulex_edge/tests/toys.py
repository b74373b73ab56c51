"""Toy denoisers with random weights everywhere (zero-initialised projections would hide faults), and a scripted one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge.model.base import DenoiserSpec, Exit
from diffulex_edge.model.context import FullContext, empty_full
from diffulex_edge.model.eco_hybrid import EcoHybrid, EcoHybridConfig
from diffulex_edge.model.transformer import TransformerConfig, TransformerDenoiser

ECO = EcoHybridConfig(
    vocab_size=48,
    d_model=32,
    n_layers=3,
    n_heads=2,
    head_dim=16,
    d_ff=32,
    memory_slots=4,
    local_attn_layers=(1,),
    local_attn_window=8,
)
BACKUP = TransformerConfig(vocab_size=48, d_model=32, n_layers=3, n_heads=2, head_dim=16, d_ff=32)
MODES = ("full", "block", "block_frozen")


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval().requires_grad_(False)


def eco(**changes: object) -> Any:
    return randomise(EcoHybrid(replace(ECO, trained_modes=MODES, **changes)))  # type: ignore[arg-type]


def backup(**changes: object) -> Any:
    return randomise(TransformerDenoiser(replace(BACKUP, **changes)))  # type: ignore[arg-type]


def ids(rows: int, length: int, seed: int = 0, vocab_size: int = 48) -> Tensor:
    """Random tokens that are none of pad, unk, eos and mask."""
    return torch.randint(4, vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


class Copycat:
    """A Denoiser that predicts, for each position, one more than the token on its left, and writes down its calls."""

    def __init__(self, vocab_size: int = 48, mask_id: int = 3) -> None:
        self.spec = DenoiserSpec(
            vocab_size=vocab_size,
            mask_id=mask_id,
            n_layers=3,
            block_length=None,
            contexts={"full": None, "canvas": None},
            trained_modes=("full", "block"),
        )
        self.calls: list[tuple[int, int | None, bool]] = []  # (length, depth, remembering)

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> FullContext:
        return empty_full(batch_size, torch.device("cpu"), first=first, canvas=kind == "canvas")

    def __call__(
        self,
        block: Tensor,
        context: FullContext | None = None,
        *,
        t: Tensor | None = None,
        depth: int | None = None,
        exit: Exit | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, FullContext]:
        context = empty_full(len(block), block.device) if context is None else context
        remembering = rows is not None and not rows.numel()
        self.calls.append((block.shape[1], depth, remembering))
        if remembering:
            return torch.zeros(0, self.spec.vocab_size), context.append(block)
        text, window = context.spread(block)
        left = torch.nn.functional.pad(text, (1, 0), value=4)[:, :-1][:, window]
        logits = torch.nn.functional.one_hot((left + 1) % self.spec.vocab_size, self.spec.vocab_size) * 5.0
        return (logits if rows is None else logits[rows]), context
