"""What reveals are made of: laying values over a block, ranking them row by row, putting guesses in. No rules here."""

from __future__ import annotations

import torch
from torch import Tensor

from diffulex_edge.runtime.sampler import Guess
from diffulex_edge.runtime.step import Step


def spread(values: Tensor, guess: Guess) -> Tensor:
    """Values (n,) of the hidden positions laid out over the block (B, L), -inf elsewhere."""
    empty = torch.full(guess.hidden.shape, -torch.inf, dtype=values.dtype, device=values.device)
    return empty.masked_scatter(guess.hidden, values)


def best(scores: Tensor, count: Tensor) -> Tensor:
    """Which positions (B, L) hold the `count` (B,) highest scores of their row; those at -inf never do."""
    order = scores.sort(dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return (rank < count[:, None]) & (scores > -torch.inf)


def show(guess: Guess, block: Tensor, which: Tensor) -> Tensor:
    """The block (B, L) with the guesses put in where `which` (B, L) says so."""
    return torch.where(which, block.masked_scatter(guess.hidden, guess.token), block)


def floor(step: Step, block: Tensor) -> Tensor:
    """How many to show at least (B,): the quota, and all there are in a row's last step."""
    return step.quota.masked_fill(step.last, block.shape[1])


def at_least_one(count: Tensor, step: Step, block: Tensor) -> Tensor:
    """The count (B,), the floor, or one: whichever is most."""
    return torch.maximum(count, floor(step, block)).clamp(min=1)


def leading(fits: Tensor) -> Tensor:
    """How many of each row (B, L) hold before the first that does not (B,)."""
    return fits.long().cumprod(1).sum(1)


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Gumbel noise. The k highest of logits + noise are k draws without replacement, arXiv:1903.06059."""
    exponential = torch.empty_like(like).exponential_(generator=generator)
    return -exponential.clamp_min_(torch.finfo(like.dtype).tiny).log()
