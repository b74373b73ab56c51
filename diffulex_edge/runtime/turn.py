"""How a block gets through a reverse step: by logits, a sampler and a reveal, or by a program that does all at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from diffulex_edge.errors import ArtefactError
from diffulex_edge.model.base import Context, Denoiser
from diffulex_edge.runtime.confidence import probability
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.reveal import RevealAbove, RevealAll, RevealTop
from diffulex_edge.runtime.sampler import Greedy, Guess, ban
from diffulex_edge.runtime.showing import floor
from diffulex_edge.runtime.step import Step

NEVER = 2.0  # no guess is so probable


@dataclass(frozen=True, eq=False)
class Turned:
    """A block after a step."""

    block: Tensor  # (B, L)
    guess: Guess
    seen: Context  # what the denoiser gave back
    state: Any  # of the reveal


class Turn(Protocol):
    def __call__(self, block: Tensor, asked: Tensor, context: Context, step: Step, state: Any) -> Turned:
        """block (B, L), asked (B, L): what is being filled. state: what the step before gave; None at first."""
        ...


@runtime_checkable
class Revealer(Protocol):
    """A denoiser that can make a step of one text with the reveal inside, so that no logits leave it."""

    banned: tuple[int, ...]  # ids that it never shows, the mask's among them, in order

    def reveal(
        self, block: Tensor, context: Context, *, t: Tensor, depth: int, asked: int, count: int, threshold: float
    ) -> tuple[Tensor, Tensor, Context]:
        """The block (1, L) after the step, how sure each column's guess was (1, L), and the context.

        asked: columns from there on are padding. Shown are the `count` surest and all of at least `threshold`.
        """
        ...


def turn_for(denoiser: Denoiser, plan: Plan, banned: Tensor, generator: torch.Generator) -> Turn:
    """The quickest way that does what the plan says. banned (n,): ids that are never shown, the mask's among them."""
    inside = threshold_of(plan)
    if inside is not None and isinstance(denoiser, Revealer) and banned.tolist() == list(denoiser.banned):
        return _Inside(denoiser, inside, generator)
    return _Outside(denoiser, plan, banned, generator)


def threshold_of(plan: Plan) -> float | None:
    """What a step inside a program has to be told in order to reveal as the plan does; None: it cannot."""
    if plan.sampler != Greedy() or plan.exit is not None:
        return None
    if isinstance(plan.reveal, RevealAbove):
        return plan.reveal.threshold
    return NEVER if plan.reveal == RevealTop(score=probability) else None


@dataclass(frozen=True, eq=False)
class _Outside:
    denoiser: Denoiser
    plan: Plan
    banned: Tensor
    generator: torch.Generator

    def __call__(self, block: Tensor, asked: Tensor, context: Context, step: Step, state: Any) -> Turned:
        hidden = asked & (block == self.denoiser.spec.mask_id)
        exit = None if self.plan.exit is None else self.plan.exit.start(block, hidden, step)
        logits, seen = self.denoiser(block, context, t=step.t, depth=step.depth, exit=exit, rows=hidden)
        guess = self.plan.sampler(ban(logits, self.banned), hidden, self.generator)
        reveal = RevealAll() if step.fallback else self.plan.reveal
        after, state = reveal(guess, block, ~asked, step, state)
        return Turned(after, guess, seen, state)


@dataclass(frozen=True, eq=False)
class _Inside:
    denoiser: Any  # a Denoiser that is a Revealer
    threshold: float
    generator: torch.Generator

    def __call__(self, block: Tensor, asked: Tensor, context: Context, step: Step, state: Any) -> Turned:
        """Of what stays hidden the guess says how sure it was, but not of which token: that never left the program."""
        mask_id = self.denoiser.spec.mask_id
        hidden = asked & (block == mask_id)
        end = int(asked[0].nonzero()[-1]) + 1
        least = 0 if self.threshold == NEVER else 1
        count = max(least, int(floor(step, block)))
        after, sure, seen = self.denoiser.reveal(
            block, context, t=step.t, depth=step.depth, asked=end, count=count, threshold=self.threshold
        )
        token, probability = after[hidden], sure[hidden]
        if not math.isfinite(float(probability.sum())):
            raise ArtefactError("the program's probabilities are not finite numbers: its weights are damaged")
        guess = Guess(token, probability, sure.new_zeros(len(token), 0), hidden, self.generator)
        return Turned(torch.where(hidden, after, block), guess, seen, state)
