"""What exits gain and what they change: seed 004's two controllers, chance, early commit and fewer layers, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.model.base import Denoiser
from diffulex_edge.model.soft_exit import Keep
from diffulex_edge.runtime.cascading import Cascading
from diffulex_edge.runtime.depth import ConstantDepth
from diffulex_edge.runtime.early_exit import SedacExit
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.reveal_settled import Exponential, RevealSettled, SchED
from diffulex_edge.runtime.step import Step
from diffulex_edge.sedac.probe import Risk
from diffulex_edge.tuning.exits import changed, written

CURVE = (0.001, 0.01, 0.05, 0.2, 0.8)  # scales of the risk thresholds
SETTLED = (2.0, 4.0, 8.0)  # k of SchED's exponential: early commit by whole steps


def exit_curve(
    denoiser: Denoiser,
    probes: Mapping[int, Risk],
    prompts: Sequence[Sequence[int]],
    plan: Plan,
    cascade: Cascading,
    advance: Callable[[int], None] = lambda n: None,
    *,
    kinds: Tensor | None = None,
) -> list[dict[str, Any]]:
    """A row an entrant: the median of its speed over that of all layers, prompt by prompt, and the share of tokens
    that it changes. All decode each prompt one after the other; chance exits as often at each layer as V6.1 does.
    """
    plans = {"all layers": plan}
    last, alone = {max(probes): probes[max(probes)]}, replace(cascade, soft=False, weights=())
    for scale in CURVE:
        soft = cascade.exits(probes, scale, kinds)
        plans[f"V6.1, scale {scale}"] = replace(plan, exit=soft)
        plans[f"V6.0, scale {scale}"] = replace(plan, exit=alone.exits(last, scale, kinds))
        rates = exit_rates(denoiser, soft, prompts[: max(1, len(prompts) // 4)], plan)
        plans[f"chance, as often as scale {scale}"] = replace(plan, exit=Chance(rates, soft))
    for k in SETTLED:
        plans[f"early commit, k {k}"] = replace(plan, reveal=RevealSettled(SchED(curve=Exponential(k))))
    n_layers = denoiser.spec.n_layers
    for depth in range(n_layers - 1, max(0, n_layers - 4), -1):
        plans[f"{depth} of {n_layers} layers"] = replace(plan, depth=ConstantDepth(depth))
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    losses: dict[str, list[float]] = {name: [] for name in plans}
    forwards = dict.fromkeys(plans, 0)
    for prompt in prompts:
        whole: list[int] = []
        for name, entrant in plans.items():
            began = time.perf_counter()
            found = written(denoiser, prompt, entrant)
            seconds[name].append(time.perf_counter() - began)
            whole = whole or found.tokens[0]
            losses[name].append(changed(found.tokens[0], whole))
            forwards[name] += found.forwards
        advance(1)
    base = seconds["all layers"]
    return [
        {
            "name": name,
            "speed": statistics.median(a / b for a, b in zip(base, seconds[name], strict=True)),
            "changed": statistics.fmean(losses[name]),
            "forwards": forwards[name] / forwards["all layers"],
        }
        for name in plans
    ]


@dataclass(eq=False)
class _Counted:
    """An ExitController that counts, layer by layer, who could have exited and who did."""

    exits: SedacExit
    could: dict[int, int] = field(default_factory=dict)
    did: dict[int, int] = field(default_factory=dict)

    def start(self, block: Tensor, hidden: Tensor, step: Step) -> Any:
        look = self.exits.start(block, hidden, step)

        def asked(layer: int, x: Tensor) -> Keep | None:
            before = look.state.exited
            keep = look(layer, x)
            self.could[layer] = self.could.get(layer, 0) + int((hidden & ~before).sum())
            self.did[layer] = self.did.get(layer, 0) + int((hidden & look.state.exited & ~before).sum())
            return keep

        return asked


def exit_rates(denoiser: Denoiser, exits: SedacExit, prompts: Sequence[Sequence[int]], plan: Plan) -> dict[int, float]:
    """Behind each checkpoint, the share of the hidden tokens still alive that exit there."""
    counted = _Counted(exits)
    for prompt in prompts:
        written(denoiser, prompt, replace(plan, exit=counted))
    return {layer: counted.did[layer] / max(1, n) for layer, n in counted.could.items() if layer in exits.probes}


@dataclass(frozen=True, eq=False)
class Chance:
    """An ExitController that tosses a coin for each hidden token behind each checkpoint; else as the cascade."""

    rates: Mapping[int, float]  # by layer
    like: SedacExit

    def start(self, block: Tensor, hidden: Tensor, step: Step) -> Any:
        generator = torch.Generator(hidden.device).manual_seed(step.index)
        exits = replace(self.like, probes={i: _coin(rate, generator) for i, rate in self._rates().items()})
        return exits.start(block, hidden, step)

    def _rates(self) -> dict[int, float]:
        return {layer: self.rates.get(layer, 0.0) for layer in self.like.probes}


def _coin(rate: float, generator: torch.Generator) -> Any:
    """In a probe's place: no risk for a share of the tokens, and for the others more than any threshold."""

    def toss(x: Tensor, masked: Tensor, t: Tensor, last: Tensor | None = None) -> Tensor:
        return (torch.rand(x.shape[:-1], generator=generator, device=x.device) >= rate).float() * 1e9

    return toss
