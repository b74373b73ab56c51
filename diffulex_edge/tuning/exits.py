"""Choosing how early to exit: the loss against decoding at full depth, and the largest scale that keeps a promise."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.cascading import Cascading
from diffulex_edge.runtime.decode import Finished, decode, finish
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.sampler import Greedy
from diffulex_edge.sedac.guarantee import SpotChecks, conformal_bounds, fixed_sequence
from diffulex_edge.sedac.probe import Risk

SCALES = tuple(0.0001 * 2**i for i in range(14))  # of the risk thresholds, the most careful first; to 0.82


@dataclass(frozen=True, kw_only=True)
class Promise:
    """At most epsilon of a sequence's tokens change, on average over sequences."""

    epsilon: float = 0.01  # share of the tokens
    delta: float = 0.05  # how often, over calibrations, the promise may be wrong; of ltt alone
    control: Literal["ltt", "crc"] = "ltt"  # Learn then Test: with probability 1 - delta; or conformal: on average

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be between 0 and 1")

    def check(self, n: int) -> None:
        """UsageError where n sequences could not keep it though not a token changed."""
        if not CONTROLS[self.control]([[0.0] * n], self)["passed"]:
            sure = f" with delta={self.delta}" if self.control in _SURE else ""
            raise UsageError(
                f"{n} sequences cannot show a loss of at most {self.epsilon}{sure}, were there none: "
                "give more texts, or promise less"
            )


def _learn_then_test(losses: Sequence[Sequence[float]], promise: Promise) -> dict[str, Any]:
    """Of the last setting, where those before it have passed."""
    return asdict(fixed_sequence(losses[-1:], promise.epsilon, promise.delta)[0])


def _conformal(losses: Sequence[Sequence[float]], promise: Promise) -> dict[str, Any]:
    bound = conformal_bounds(losses)[-1]
    return {"risk": statistics.fmean(losses[-1]), "bound": bound, "passed": bound <= promise.epsilon}


CONTROLS = {"ltt": _learn_then_test, "crc": _conformal}
_SURE = ("ltt",)  # those that delta is of


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
    probes: Mapping[int, Risk],
    prompts: Sequence[Sequence[int]],
    plan: Plan,
    promise: Promise,
    cascade: Cascading,
    advance: Callable[[int], None] = lambda n: None,
    *,
    kinds: Tensor | None = None,
) -> dict[str, Any]:
    """The promise tried on SCALES, until one fails: the largest that passed, or None; and every test that was made.

    A scale that needs more forwards than full depth does, on average, fails too: exits must not buy time with steps.
    Decodes each prompt once at full depth and once a scale; the channels of the model must be sorted.
    """
    promise.check(len(prompts))
    whole = []
    for prompt in prompts:
        whole.append(written(denoiser, prompt, plan))
        advance(1)
    tests: list[dict[str, Any]] = []
    tried: list[list[float]] = []
    chosen = None
    for scale in SCALES:
        exits = replace(plan, exit=cascade.exits(probes, scale, kinds))
        tried.append([])
        forwards = 0
        for prompt, full in zip(prompts, whole, strict=True):
            early = written(denoiser, prompt, exits)
            tried[-1].append(changed(early.tokens[0], full.tokens[0]))
            forwards += early.forwards
            advance(1)
        test = CONTROLS[promise.control](tried, promise)
        more = forwards / max(1, sum(full.forwards for full in whole))
        passed = test.pop("passed")
        tests.append({"scale": scale, **test, "forwards": more})
        if not passed or more > 1:
            break
        chosen = scale
    return {
        "scale": chosen,
        "risk": next((test["risk"] for test in tests if test["scale"] == chosen), None),
        "unit": f"a continuation of {plan.max_new_tokens} tokens",
        "n": len(prompts),
        **asdict(promise),
        "tests": tests,
    }


def watch_exits(
    denoiser: Denoiser,
    probes: Mapping[int, Risk],
    prompts: Sequence[Sequence[int]],
    plan: Plan,
    calibration: dict[str, Any],
    cascade: Cascading,
    factor: float,
    advance: Callable[[int], None] = lambda n: None,
    *,
    kinds: Tensor | None = None,
) -> dict[str, Any]:
    """Spot checks: each prompt in turn is continued with the exits and without, and the scale follows the losses.

    factor: of the calibrated scale, where the checks begin; what they end with is in the answer.
    """
    checks = SpotChecks(epsilon=calibration["epsilon"], scale=factor)
    for prompt in prompts:
        whole = written(denoiser, prompt, plan)
        exits = cascade.exits(probes, calibration["scale"] * checks.scale, kinds)
        early = written(denoiser, prompt, replace(plan, exit=exits))
        checks.see(changed(early.tokens[0], whole.tokens[0]))
        advance(1)
    return {"n": checks.checks, "risk": checks.total / checks.checks, "began": factor, "factor": checks.scale}
