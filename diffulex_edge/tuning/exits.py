"""Choosing how early to exit: the loss against decoding at full depth, and the largest scale that keeps a promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.decode import Finished, decode, finish
from diffulex_edge.runtime.exit_file import Cascading
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.sampler import Greedy
from diffulex_edge.sedac.guarantee import fixed_sequence, hoeffding_bentkus
from diffulex_edge.sedac.probe import Probe

SCALES = tuple(0.0001 * 2**i for i in range(14))  # of the risk thresholds, the most careful first; to 0.82


@dataclass(frozen=True, kw_only=True)
class Promise:
    """With probability 1 - delta over the calibration's sequences, at most epsilon of a sequence's tokens change."""

    epsilon: float = 0.01  # share of the tokens, on average over sequences
    delta: float = 0.05  # how often the promise may be wrong

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be between 0 and 1")

    def check(self, n: int) -> None:
        """UsageError where n sequences could not keep it though not a token changed."""
        if hoeffding_bentkus(0.0, n, self.epsilon) > self.delta:
            raise UsageError(
                f"{n} sequences cannot show a loss of at most {self.epsilon} with delta={self.delta}, were there none: "
                "give more texts, or promise less"
            )


def changed(written: Sequence[int], whole: Sequence[int]) -> float:
    """The share of tokens that differ, place by place; what one text has and the other has not, differs."""
    longer = max(len(written), len(whole))
    same = sum(a == b for a, b in zip(written, whole, strict=False))
    return (longer - same) / longer if longer else 0.0


def written(denoiser: Denoiser, prompt: Sequence[int], plan: Plan) -> Finished:
    """A greedy continuation."""
    return finish(decode(denoiser, [list(prompt)], replace(plan, sampler=Greedy())))


def calibrate_exits(
    denoiser: Denoiser,
    probes: dict[int, Probe],
    prompts: Sequence[Sequence[int]],
    plan: Plan,
    promise: Promise,
    cascade: Cascading,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Learn then Test over SCALES, until one fails: the largest that passed, or None; and every test that was made.

    A scale that needs more forwards than full depth does, on average, fails too: exits must not buy time with steps.
    Decodes each prompt once at full depth and once a scale; the channels of the model must be sorted.
    """
    promise.check(len(prompts))
    whole = []
    for prompt in prompts:
        whole.append(written(denoiser, prompt, plan))
        advance(1)
    tests: list[dict[str, Any]] = []
    chosen = None
    for scale in SCALES:
        exits = replace(plan, exit=cascade.exits(probes, scale))
        losses, forwards = [], 0
        for prompt, full in zip(prompts, whole, strict=True):
            early = written(denoiser, prompt, exits)
            losses.append(changed(early.tokens[0], full.tokens[0]))
            forwards += early.forwards
            advance(1)
        (test,) = fixed_sequence([losses], promise.epsilon, promise.delta)
        more = forwards / max(1, sum(full.forwards for full in whole))
        tests.append({"scale": scale, "risk": test.risk, "p_value": test.p_value, "forwards": more})
        if not test.passed or more > 1:
            break
        chosen = scale
    return {
        "scale": chosen,
        "risk": next((test["risk"] for test in tests if test["scale"] == chosen), None),
        "unit": f"a continuation of {plan.max_new_tokens} tokens",
        "n": len(prompts),
        "epsilon": promise.epsilon,
        "delta": promise.delta,
        "tests": tests,
    }
