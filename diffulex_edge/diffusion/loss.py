"""The objective: weighted cross entropy at masked positions; weights make it the NELBO or the seed's mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffulex_edge.diffusion.corruption import Corrupted
from diffulex_edge.diffusion.schedule import NoiseSchedule


def nelbo_weight(noised: Corrupted, schedule: NoiseSchedule) -> Tensor:
    """r'(t) / r(t) at each masked position (n,), row-major: 1/t for the linear schedule. MDLM, arXiv:2406.07524.

    Summed over masked tokens and divided by all maskable ones this bounds the negative log-likelihood a token.
    """
    weight = schedule.slope(noised.t) / schedule.mask_rate(noised.t)
    return weight[:, None].expand_as(noised.masked)[noised.masked]


def mean_weight(noised: Corrupted, schedule: NoiseSchedule) -> Tensor:
    """T / (number masked in the row) at each masked position (n,): seed 002's mean over masked tokens, then over rows.

    Not a bound: report the NELBO beside it.
    """
    counts = noised.masked.sum(1, keepdim=True)
    return (noised.masked.shape[1] / counts).expand_as(noised.masked)[noised.masked]


CHUNK = {"cpu": 256, "cuda": 1 << 14}  # rows of logits at once: what a cache holds; few kernels


class _WeightedCrossEntropy(torch.autograd.Function):
    """sum_i weight_i * (-log softmax(logits_i)[target_i]), fp32, in chunks that fit a cache.

    The gradient is computed in the forward pass and overwrites the logits, which nobody needs again: a third of the
    time and half of the memory of log_softmax and its backward at V = 8192 on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, weight: Tensor, banned: int) -> Tensor:
        total, size = logits.new_zeros((), dtype=torch.float64), CHUNK[logits.device.type]
        for start in range(0, len(logits), size):
            chunk, target = logits[start : start + size], targets[start : start + size, None]
            w = weight[start : start + size, None].float()
            p = chunk.float()
            p[:, banned] = -torch.inf  # SUBS: a token is never predicted to be [MASK]
            p -= p.amax(1, keepdim=True)
            picked = p.gather(1, target)
            p.exp_()
            mass = p.sum(1, keepdim=True)
            total += ((mass.log() - picked) * w).sum()
            p *= w / mass
            chunk.copy_(p.scatter_add_(1, target, -w))
        ctx.save_for_backward(logits)
        return total.float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(grads[0]), None, None, None


def masked_loss(logits: Tensor, targets: Tensor, weight: Tensor, mask_id: int) -> Tensor:
    """The weighted sum over masked positions of the cross entropy, in nats: logits (n, V), targets (n,), weight (n,).

    Divide by the number of maskable tokens of the whole accumulation window, not of the micro-batch. With grad enabled
    the logits are overwritten. Their [MASK] column counts as minus infinity (SUBS, arXiv:2406.07524).
    """
    if not torch.is_grad_enabled():
        logits = logits.clone()
    return _WeightedCrossEntropy.apply(logits, targets, weight, mask_id)


def divergence(aim: Tensor, logits: Tensor, weight: Tensor, mask_id: int) -> Tensor:
    """sum_i weight_i * KL(softmax(aim_i) || softmax(logits_i)), in nats: aim and logits (n, V), weight (n,).

    Distillation at temperature 1, arXiv:1503.02531. The [MASK] columns count as minus infinity, as in `masked_loss`;
    aim takes no gradient.
    """
    ban = torch.zeros(logits.shape[-1], device=logits.device)
    ban[mask_id] = -1e9  # infinity times the probability of zero would be no number
    aimed, found = ((x.float() + ban).log_softmax(-1) for x in (aim.detach(), logits))
    return ((aimed.exp() * (aimed - found)).sum(-1) * weight.float()).sum()
