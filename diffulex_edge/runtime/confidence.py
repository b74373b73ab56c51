"""How sure a guess is, in several senses: the scores by which reveals rank the hidden positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffulex_edge.runtime.sampler import Categorical, Guess

Score = Callable[[Guess], Tensor]  # a number (n,) for each hidden position: the higher, the earlier it is shown


def probability(guess: Guess) -> Tensor:
    """The probability (n,) of the guessed token: MaskGIT, arXiv:2202.04200; LLaDA's low_confidence."""
    return guess.probability


def margin(guess: Guess) -> Tensor:
    """How far (n,) the likeliest token's probability is ahead of the next: arXiv:2502.06768; Dream's topk_margin."""
    first, second = guess.logits.softmax(-1).topk(2, dim=-1).values.unbind(-1)
    return first - second


def negative_entropy(guess: Guess) -> Tensor:
    """-H (n,) in nats of the distribution at each position: Dream's entropy, arXiv:2508.15487."""
    return -torch.special.entr(guess.logits.softmax(-1)).sum(-1)


def logit_gap(guess: Guess) -> Tensor:
    """How far (n,) the highest logit is above the next: Prophet, arXiv:2508.19982. The temperature changes nothing."""
    first, second = guess.logits.topk(2, dim=-1).values.unbind(-1)
    return first - second


@dataclass(frozen=True)
class AsDrawn:
    """A score of the distribution that the sampler draws from, tempered and cut, instead of the model's own.

    Dream measures its confidence so (arXiv:2508.15487), LLaDA and Fast-dLLM do not.
    """

    score: Score
    sampler: Categorical

    def __call__(self, guess: Guess) -> Tensor:
        logits = self.sampler.shape(guess.logits)  # (n, V)
        chosen = logits.softmax(-1).gather(-1, guess.token[:, None])[:, 0]
        return self.score(replace(guess, logits=logits, probability=chosen))
