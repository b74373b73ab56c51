"""Which tokens a step shows, in flags; and the objects that they mean."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import tyro

from diffulex_edge.cli.reveals import QUOTAS, REVEALS
from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.confidence import AsDrawn
from diffulex_edge.runtime.quota import Quota
from diffulex_edge.runtime.reveal import Remasking, Reveal
from diffulex_edge.runtime.sampler import Categorical, Sampler
from diffulex_edge.runtime.sub_blocks import SubBlocks

if TYPE_CHECKING:
    RevealName = str
    QuotaName = str
else:
    RevealName, QuotaName = map(tyro.extras.literal_type_from_choices, (REVEALS, QUOTAS))
NUMBERS = ("threshold", "kl", "factor", "bound", "alg_temp", "eps")


@dataclass(frozen=True, kw_only=True)
class RevealFlags:
    """Which tokens a step shows."""

    reveal: RevealName = "top"  # the rule; origin, maskgit_plus, topk_margin and entropy are Dream's
    quota: QuotaName | None = None  # tokens a step shows, at least; None: proportional for Dream's rules, else schedule
    threshold: float | None = None  # for threshold, klass: the probability that is enough; None: 0.9
    kl: float | None = None  # for klass: nats by which a guess may have changed in each of two steps; None: 0.01
    factor: float | None = None  # for factor: the larger, the more tokens at once; None: 1
    bound: float | None = None  # for entropy_bound: nats that may be shown at once; None: 0.1
    alg_temp: float | None = None  # for maskgit_plus, topk_margin, entropy: above 0, draw the places; None: 0
    eps: float | None = None  # for origin, and the quota proportional: time at which the last step ends; None: 0.001
    sub_block: int = 0  # decode a block in parts of so many tokens, one after the other; 0: all of it together
    remask_one_in: int = 0  # at each step hide one in so many earlier tokens again; 0: none

    def choose(self, sampler: Sampler) -> tuple[Reveal, Quota]:
        """The rule and the quota. Raises UsageError for a number that the rule does not take."""
        rule, quota = REVEALS[self.reveal], self.quota or REVEALS[self.reveal].quota
        numbers: dict[str, Any] = {name: getattr(self, name) for name in NUMBERS if getattr(self, name) is not None}
        if "eps" in numbers:
            numbers["eps"] = Fraction(str(self.eps))
        shares = {"eps": numbers["eps"]} if quota == "proportional" and "eps" in numbers else {}
        wrong = numbers.keys() - {*rule.takes, *shares}
        if wrong:
            raise UsageError(f"--reveal {self.reveal} takes {_listed(rule.takes)}, not --{min(wrong)}")
        own = {name: numbers[name] for name in rule.takes if name in numbers}
        if rule.score:
            own["score"] = AsDrawn(rule.score, sampler) if isinstance(sampler, Categorical) else rule.score
        reveal: Reveal = rule.make(**own)
        reveal = SubBlocks(reveal, self.sub_block) if self.sub_block else reveal
        reveal = Remasking(reveal, self.remask_one_in) if self.remask_one_in else reveal
        return reveal, QUOTAS[quota](**shares)


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join("--" + name for name in names) or "no number"
