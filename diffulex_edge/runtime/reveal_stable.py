"""Reveals that compare a step's guesses with those of the step before: KLASS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.sampler import Guess
from diffulex_edge.runtime.showing import best, floor, show, spread
from diffulex_edge.runtime.step import Step

LEAST = -100.0  # log probability of what is banned: at -inf, 0 times the difference would be no number


@dataclass(frozen=True)
class Memory:
    """What a step of KLASS (arXiv:2511.05664) leaves for the next: the distributions of what was hidden."""

    log_probs: Tensor  # (n, V) fp32: as much memory as the step's logits, so at most 4 B L V bytes
    hidden: Tensor  # (B, L) bool: where these n positions are
    calm: Tensor  # (B, L) for how many steps in a row each position has changed by less than `kl`


@dataclass(frozen=True)
class RevealStable:
    """All that is at least so probable and has stayed as it is: KLASS, arXiv:2511.05664.

    Stayed: KL(p || p of the step before) at that position was below `kl` in each of the last `history` steps, so the
    first `history` steps of a block show no more than the floor: the quota, at least one, filled up with the most
    confident. KL divergences are exact, over the whole vocabulary. Each block begins without memory of the one before.
    """

    threshold: float = 0.9  # probability of the token
    kl: float = 0.01  # nats
    history: int = 2  # steps

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold={self.threshold} is a probability: it must be in [0, 1]")
        if not 0 <= self.kl < float("inf"):
            raise UsageError(f"kl={self.kl} nats must be at least 0 and finite")
        if not isinstance(self.history, int) or self.history < 1:
            raise UsageError(f"history={self.history} steps must be an integer of at least 1")

    def __call__(
        self, guess: Guess, block: Tensor, given: Tensor, step: Step, state: Memory | None
    ) -> tuple[Tensor, Any]:
        memory = self._compare(guess, state)
        scores = spread(guess.probability, guess)  # (B, L)
        ready = (scores >= self.threshold) & (memory.calm >= self.history)
        short = (floor(step, block).clamp(min=1) - ready.sum(1)).clamp(min=0)  # (B,)
        return show(guess, block, ready | best(scores.masked_fill(ready, -torch.inf), short)), memory

    def _compare(self, guess: Guess, before: Memory | None) -> Memory:
        """The memory after this step; a position that was not hidden in the step before is not calm."""
        now = guess.logits.log_softmax(-1).clamp_min(LEAST)  # (n, V)
        if before is None:
            return Memory(now, guess.hidden, torch.zeros_like(guess.hidden, dtype=torch.long))
        both = guess.hidden & before.hidden  # (B, L)
        new, old = now[both[guess.hidden]], before.log_probs[both[before.hidden]]
        calm = torch.zeros_like(both).masked_scatter(both, (new.exp() * (new - old)).sum(-1) < self.kl)
        return Memory(now, guess.hidden, torch.where(calm, before.calm + 1, 0))
