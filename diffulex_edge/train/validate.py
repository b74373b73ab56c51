"""A quick look at held-out text during training: the same few windows with the same masks every time."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from diffulex_edge.diffusion.corruption import exact_count
from diffulex_edge.diffusion.loss import masked_loss
from diffulex_edge.diffusion.schedule import NoiseSchedule
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.text.batches import Batches
from diffulex_edge.train.objective import next_token_loss


@torch.no_grad()
def validate(
    model: Denoiser, data_dir: Path, seq_len: int, schedule: NoiseSchedule, windows: int = 64
) -> dict[str, float]:
    """{"val_nats_per_token", "val_bits_per_char"}: the NELBO by exact-count masking, exact where autoregressive.

    Empty where val.bin has no window.
    """
    try:
        batches = Batches(data_dir, "val", seq_len=seq_len, batch_size=16, seed=0)
    except UsageError:
        return {}
    generator, device = torch.Generator().manual_seed(0), next(model.parameters()).device  # type: ignore[attr-defined]
    total, tokens = 0.0, 0
    for index in range(windows // 16):
        x = batches.batch(index).to(device)
        tokens += x.numel()
        if model.spec.autoregressive:
            total += float(next_token_loss(model, x))
            continue
        counts = (
            torch.randperm(16, generator=generator) * seq_len + torch.randint(seq_len, (16,), generator=generator)
        ) // 16 + 1
        noised = exact_count(x, counts, model.spec.mask_id, generator)
        logits, _ = model(noised.xt, t=schedule.time(noised.t), rows=noised.masked)
        weight = (1 / noised.t)[:, None].expand_as(x)[noised.masked]
        total += float(masked_loss(logits, x[noised.masked], weight, model.spec.mask_id))
    nats = total / tokens
    return {"val_nats_per_token": nats, "val_bits_per_char": nats / math.log(2) / batches.chars_per_token}
