"""Which hidden positions of a block a step shows, and which shown ones it hides again. Never calls the model.

A Reveal gets a guess for every hidden position and gives back the block (B, L). All of them keep two promises: what is
`given` is not touched, and in a row's last step everything is shown. The quota of the step is a floor; a reveal that
goes by confidence may show more, and always shows at least one token a row. Ties go to the smallest index.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.sampler import Guess
from diffulex_edge.runtime.step import Step


class Reveal(Protocol):
    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        """From a block (B, L) to the block after the step. given (B, L): not to be hidden. state: None at first."""
        ...


@dataclass(frozen=True)
class RevealTop:
    """The step's quota, the most confident first: MaskGIT, arXiv:2202.04200; LLaDA's low_confidence."""

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        scores = _spread(guess.probability, guess)
        return _show(guess, block, _best(scores, _floor(step, block))), state


@dataclass(frozen=True)
class RevealAll:
    """Everything: one-step decoding, and the fallback pass of seed 002, section 4."""

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        return _show(guess, block, guess.hidden), state


@dataclass(frozen=True)
class RevealAbove:
    """All that is at least so probable: Fast-dLLM, arXiv:2505.22618; seed 002's confidence_stop.

    The floor is the quota: with OneByOne it is Fast-dLLM's one token, with EvenSplit SDAR's dynamic rule.
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold={self.threshold} is a probability: it must be in [0, 1]")

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        scores = _spread(guess.probability, guess)  # (B, L)
        count = (scores >= self.threshold).sum(1)
        return _show(guess, block, _best(scores, _at_least_one(count, step, block))), state


@dataclass(frozen=True)
class RevealFactor:
    """The n most confident, as long as (n + 1) (1 - c_n) <= factor, c_n the n-th: Fast-dLLM, arXiv:2505.22618.

    With factor 1 showing n tokens at once gives what showing them one by one would (its theorem 1).
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.factor < float("inf"):
            raise UsageError(f"factor={self.factor} must be at least 0 and finite")

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        scores = _spread(guess.probability, guess)
        surest = scores.sort(1, descending=True).values  # (B, L)
        n = torch.arange(1, block.shape[1] + 1, device=block.device)
        count = _leading((n + 1) * (1 - surest) <= self.factor)
        return _show(guess, block, _best(scores, _at_least_one(count, step, block))), state


@dataclass(frozen=True)
class RevealEntropyBound:
    """The lowest in entropy, as long as sum H - max H <= bound: they depend on each other by no more than that.

    The EB-Sampler, arXiv:2505.24857; the entropies in nats.
    """

    bound: float = 0.1  # nats

    def __post_init__(self) -> None:
        if not 0 <= self.bound < float("inf"):
            raise UsageError(f"bound={self.bound} nats must be at least 0 and finite")

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        scores = _spread(-torch.special.entr(guess.logits.softmax(-1)).sum(-1), guess)
        entropy = -scores.sort(1, descending=True).values  # (B, L), inf where nothing is hidden
        before = torch.cat((torch.zeros_like(entropy[:, :1]), entropy.cumsum(1)[:, :-1]), 1)  # sum H - max H
        count = _leading((before <= self.bound) & entropy.isfinite())
        return _show(guess, block, _best(scores, _at_least_one(count, step, block))), state


@dataclass(frozen=True)
class RevealInOrder:
    """The step's quota from left to right: SDAR's sequential rule, arXiv:2510.06303. With OneByOne: autoregressive."""

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        columns = torch.arange(block.shape[1], device=block.device).expand_as(block)
        scores = _spread(-columns[guess.hidden].float(), guess)
        return _show(guess, block, _best(scores, _floor(step, block))), state


@dataclass(frozen=True)
class RevealRandom:
    """The step's quota at random: the reverse process of MDLM, arXiv:2406.07524; LLaDA's random remasking."""

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        luck = torch.rand(guess.token.shape, generator=guess.generator, device=block.device)
        return _show(guess, block, _best(_spread(luck, guess), _floor(step, block))), state


@dataclass(frozen=True)
class Remasking:
    """After another reveal, hides some of the earlier tokens again: ReMDM, arXiv:2503.00307, its confidence variant.

    Drawn in proportion to softmax(-p), p the probability at which a token was shown. Where ReMDM tosses a coin for each
    token, this draws an exact number: one in `one_in`, rounded up, and no more than are hidden anyway. The next step
    shows as many more, so that the schedule is kept; in a row's last step nothing is hidden.
    """

    inner: Reveal = RevealTop()
    one_in: int = 10  # of the tokens shown before this step, one in so many is hidden again

    def __post_init__(self) -> None:
        if not isinstance(self.one_in, int) or self.one_in < 1:
            raise UsageError(f"one_in={self.one_in} must be an integer of at least 1")

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        sure, owed, inner_state = state or (torch.full(block.shape, -torch.inf, device=block.device), 0, None)
        after, inner_state = self.inner(guess, block, given, replace(step, quota=step.quota + owed), inner_state)
        new, doubtful = after != block, sure.isfinite() & ~given  # (B, L)
        count = -(-doubtful.sum(1) // self.one_in)
        count = torch.minimum(count, (guess.hidden & ~new).sum(1)).masked_fill(step.last, 0)
        gumbel = -torch.empty_like(sure).exponential_(generator=guess.generator).log()
        again = _best(torch.where(doubtful, gumbel - sure, -torch.inf), count)
        sure = torch.where(new, _spread(guess.probability, guess), sure).masked_fill(again, -torch.inf)
        mask_id = block[guess.hidden][0]  # what is hidden holds the mask id
        return torch.where(again, mask_id, after), (sure, count, inner_state)


def _spread(values: Tensor, guess: Guess) -> Tensor:
    """Values (n,) of the hidden positions laid out over the block (B, L), -inf elsewhere."""
    empty = torch.full(guess.hidden.shape, -torch.inf, dtype=values.dtype, device=values.device)
    return empty.masked_scatter(guess.hidden, values)


def _best(scores: Tensor, count: Tensor) -> Tensor:
    """Which positions (B, L) hold the `count` (B,) highest scores of their row; those at -inf never do."""
    order = scores.sort(dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return (rank < count[:, None]) & (scores > -torch.inf)


def _show(guess: Guess, block: Tensor, which: Tensor) -> Tensor:
    """The block (B, L) with the guesses put in where `which` (B, L) says so."""
    return torch.where(which, block.masked_scatter(guess.hidden, guess.token), block)


def _floor(step: Step, block: Tensor) -> Tensor:
    """How many to show at least (B,): the quota, and all there are in a row's last step."""
    return step.quota.masked_fill(step.last, block.shape[1])


def _at_least_one(count: Tensor, step: Step, block: Tensor) -> Tensor:
    return torch.maximum(count, _floor(step, block)).clamp(min=1)


def _leading(fits: Tensor) -> Tensor:
    """How many of each row hold before the first that does not (B,)."""
    return fits.long().cumprod(1).sum(1)
