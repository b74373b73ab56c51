"""The rules of revealing and the quotas by name: what a flag, or a file, may call them. Names end here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from diffulex_edge.runtime import confidence, reveal
from diffulex_edge.runtime.quota import BySchedule, EvenSplit, OneByOne, Proportional, Quota
from diffulex_edge.runtime.reveal_settled import Prophet, RevealSettled, SchED
from diffulex_edge.runtime.reveal_stable import RevealStable


@dataclass(frozen=True)
class Rule:
    make: Callable[..., reveal.Reveal]
    takes: tuple[str, ...] = ()  # flags it listens to
    quota: str = "schedule"  # where no flag says otherwise
    score: confidence.Score | None = None  # measured on what the sampler draws from


REVEALS = {
    "top": Rule(reveal.RevealTop),
    "threshold": Rule(reveal.RevealAbove, ("threshold",)),
    "factor": Rule(reveal.RevealFactor, ("factor",)),
    "entropy_bound": Rule(reveal.RevealEntropyBound, ("bound",)),
    "klass": Rule(RevealStable, ("threshold", "kl")),
    "prophet": Rule(partial(RevealSettled, Prophet())),
    "sched": Rule(partial(RevealSettled, SchED())),
    "in_order": Rule(reveal.RevealInOrder),
    "random": Rule(reveal.RevealRandom),
    "all": Rule(reveal.RevealAll),
    "origin": Rule(reveal.RevealByChance, ("eps",), "proportional"),
    "maskgit_plus": Rule(reveal.RevealTop, ("alg_temp",), "proportional", confidence.probability),
    "topk_margin": Rule(reveal.RevealTop, ("alg_temp",), "proportional", confidence.margin),
    "entropy": Rule(reveal.RevealTop, ("alg_temp",), "proportional", confidence.negative_entropy),
}
QUOTAS: dict[str, Callable[..., Quota]] = {
    "schedule": BySchedule,
    "even": EvenSplit,
    "proportional": Proportional,
    "one_by_one": OneByOne,
}
