"""Masked pseudo-log-likelihood: how well a text's tokens are told from all the others. The judge of infill lengths.

Each token is hidden in turn (Salazar et al., arXiv:1910.14659), so the model never sees what it is asked for; scoring a
text with nothing hidden, as seed 000 does, lets it copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffulex_edge.diffusion.schedule import find_schedule
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.sampler import ban


@torch.inference_mode()
def masked_log_probs(
    denoiser: Denoiser,
    ids: Sequence[int] | Tensor,
    positions: Sequence[int] | None = None,
    *,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """log p(token | all others) in nats (n,) at the given positions of a text of T ids, at all of them by default."""
    text = torch.as_tensor(ids, dtype=torch.long, device=device)  # (T,)
    where = torch.arange(len(text), device=device) if positions is None else torch.tensor(positions, device=device)
    if not len(where):
        raise UsageError("there is no position to score")
    scores, schedule = [], find_schedule(denoiser.spec.mask_schedule)
    mask = torch.tensor([denoiser.spec.mask_id], device=device)
    for chunk in where.split(batch_size):
        hidden = torch.arange(len(text), device=device) == chunk[:, None]  # (b, T)
        noisy = text.masked_fill(hidden, denoiser.spec.mask_id)
        t = schedule.time(torch.full((len(chunk),), 1 / len(text), device=device))
        logits, _ = denoiser(noisy, None, t=t, rows=hidden)
        scores.append(ban(logits, mask).log_softmax(-1).gather(1, text[chunk][:, None])[:, 0])
    return torch.cat(scores)


def masked_pll(
    denoiser: Denoiser,
    ids: Sequence[int] | Tensor,
    positions: Sequence[int] | None = None,
    *,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> float:
    """The mean of `masked_log_probs`: nats a token, at most 0."""
    return masked_log_probs(denoiser, ids, positions, batch_size=batch_size, device=device).double().mean().item()
