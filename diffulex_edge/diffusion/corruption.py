"""The forward process: which tokens become [MASK]. Pure functions of their arguments and of the generator handed in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffulex_edge.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True, eq=False)
class Corrupted:
    """A clean batch seen through noise: xt (B, T), the masked positions (B, T), the time t (B,)."""

    xt: Tensor
    masked: Tensor
    t: Tensor


def permuted_strata(n: int, generator: torch.Generator, eps: float = 1e-2) -> Tensor:
    """n times (n,) in (eps, 1], one in each n-th of the interval, in random order.

    Stratified for variance, MDLM arXiv:2406.07524; permuted, so that no row of the batch is bound to one noise level.
    eps bounds the weight 1/t of a small batch.
    """
    u = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    return eps + (1 - eps) * u


def discrete_times(n: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """n times (n,) among 1/timesteps, ..., 1, stratified: seed 002's t ~ Uniform(0, T-1), written (t + 1) / T."""
    u = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    return ((u * timesteps).floor().clamp(max=timesteps - 1) + 1) / timesteps


def corrupt(x0: Tensor, schedule: NoiseSchedule, mask_id: int, *, t: Tensor, generator: torch.Generator) -> Corrupted:
    """Masks each token of x0 (B, T) with probability r(t), t (B,); a row that would lose none loses one at random.

    Chance comes from the CPU, so that it is the same on every device.

    The forced mask is for training alone: in an estimate of the bound it would bias short rows upwards (`exact_count`).
    """
    draw, t = torch.rand(x0.shape, generator=generator).to(x0.device), t.to(x0.device)
    masked = draw < schedule.mask_rate(t)[:, None]
    masked |= (draw == draw.amin(1, keepdim=True)) & ~masked.any(1, keepdim=True)
    return Corrupted(x0.masked_fill(masked, mask_id), masked, t)


def exact_count(x0: Tensor, counts: Tensor, mask_id: int, generator: torch.Generator) -> Corrupted:
    """Masks exactly counts (B,) tokens of each row of x0 (B, T), drawn without replacement; t = counts / T.

    With counts ~ U{1..T} and weight T / count the masked cross entropy is an unbiased NELBO without the 1/t blow-up:
    the likelihood estimate of LLaDA, arXiv:2502.09992.
    """
    order, counts = torch.rand(x0.shape, generator=generator).argsort(1).argsort(1).to(x0.device), counts.to(x0.device)
    masked = order < counts[:, None]
    return Corrupted(x0.masked_fill(masked, mask_id), masked, counts / x0.shape[1])
