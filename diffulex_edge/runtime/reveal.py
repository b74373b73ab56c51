"""Which hidden positions of a block a step shows, and which shown ones it hides again. Never calls the model.

A Reveal gets a guess for every hidden position and gives back the block (B, L). All of them keep two promises: what is
`given` is not touched, and in a row's last step everything is shown. The quota of the step is a floor (only
RevealByChance has none); a reveal that goes by confidence may show more, and always shows at least one token a row.
Ties go to the smallest index. More of them: reveal_stable.py, reveal_settled.py, sub_blocks.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.confidence import Score, negative_entropy, probability
from diffulex_edge.runtime.sampler import Guess
from diffulex_edge.runtime.showing import at_least_one, best, floor, gumbel, leading, show, spread
from diffulex_edge.runtime.step import Step


class Reveal(Protocol):
    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        """From a block (B, L) to the block after the step. given (B, L): not to be hidden. state: None at first."""
        ...


@dataclass(frozen=True)
class RevealTop:
    """The step's quota, the most confident first: MaskGIT, arXiv:2202.04200; LLaDA's low_confidence.

    With the scores of confidence.py it is Dream's maskgit_plus, topk_margin and entropy (arXiv:2508.15487). Above 0,
    alg_temp draws the positions without replacement, in proportion to softmax(score / alg_temp).
    """

    score: Score = probability
    alg_temp: float = 0.0  # 0: the highest scores, no draw

    def __post_init__(self) -> None:
        if not 0 <= self.alg_temp < float("inf"):
            raise UsageError(f"alg_temp={self.alg_temp} must be at least 0 and finite")

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        scores = self.score(guess)  # (n,)
        if self.alg_temp:
            scores = scores.double() / self.alg_temp
            scores = scores + gumbel(scores, guess.generator)
        return show(guess, block, best(spread(scores, guess), floor(step, block))), state


@dataclass(frozen=True)
class RevealAll:
    """Everything: one-step decoding, and the fallback pass of seed 002, section 4."""

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        return show(guess, block, guess.hidden), state


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
        scores = spread(guess.probability, guess)  # (B, L)
        count = (scores >= self.threshold).sum(1)
        return show(guess, block, best(scores, at_least_one(count, step, block))), state


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
        scores = spread(guess.probability, guess)
        surest = scores.sort(1, descending=True).values  # (B, L)
        n = torch.arange(1, block.shape[1] + 1, device=block.device)
        count = leading((n + 1) * (1 - surest) <= self.factor)
        return show(guess, block, best(scores, at_least_one(count, step, block))), state


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
        scores = spread(negative_entropy(guess), guess)
        entropy = -scores.sort(1, descending=True).values  # (B, L), inf where nothing is hidden
        before = torch.cat((torch.zeros_like(entropy[:, :1]), entropy.cumsum(1)[:, :-1]), 1)  # sum H - max H
        count = leading((before <= self.bound) & entropy.isfinite())
        return show(guess, block, best(scores, at_least_one(count, step, block))), state


@dataclass(frozen=True)
class RevealInOrder:
    """The step's quota from left to right: SDAR's sequential rule, arXiv:2510.06303. With OneByOne: autoregressive."""

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        columns = torch.arange(block.shape[1], device=block.device).expand_as(block)
        scores = spread(-columns[guess.hidden].float(), guess)
        return show(guess, block, best(scores, floor(step, block))), state


@dataclass(frozen=True)
class RevealRandom:
    """The step's quota at random: the reverse process of MDLM, arXiv:2406.07524; LLaDA's random remasking."""

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        luck = torch.rand(guess.token.shape, generator=guess.generator, device=block.device)
        return show(guess, block, best(spread(luck, guess), floor(step, block))), state


@dataclass(frozen=True)
class RevealByChance:
    """Each hidden token with chance 1 - s/t, whatever the others do: Dream's origin, arXiv:2508.15487.

    A step goes from time t to s, which run from 1 to eps in equal steps. The quota is what this shows on average; a
    step may show nothing.
    """

    eps: Fraction = Fraction(1, 1000)  # the time at which the last step ends, as in quota.Proportional

    def __post_init__(self) -> None:
        if not 0 <= self.eps < 1:
            raise UsageError(f"eps={self.eps} must be in [0, 1)")

    def __call__(self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        eps = float(self.eps)
        chance = 1 - (eps + (1 - eps) * step.s) / (eps + (1 - eps) * step.t)  # (B,)
        chance = chance.masked_fill(step.last, 1.0)[:, None].expand_as(block)[guess.hidden]  # (n,)
        luck = torch.rand(guess.token.shape, generator=guess.generator, device=block.device)
        which = torch.zeros_like(guess.hidden).masked_scatter(guess.hidden, luck < chance)
        return show(guess, block, which), state


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
        noise = gumbel(sure, guess.generator)
        again = best(torch.where(doubtful, noise - sure, -torch.inf), count)
        sure = torch.where(new, spread(guess.probability, guess), sure).masked_fill(again, -torch.inf)
        mask_id = block[guess.hidden][0]  # what is hidden holds the mask id
        return torch.where(again, mask_id, after), (sure, count, inner_state)
