"""Probes for the layers of a model, each admitted only where it beats what is free, which serves where it does not."""

from __future__ import annotations

from dataclasses import dataclass

from diffulex_edge.sedac.free import FreeScore, calibrated
from diffulex_edge.sedac.probe import Probe, auroc, fit
from diffulex_edge.tuning.states import FREE, States

CHANCE = 0.5  # the AUROC of a coin
HELD_OUT = 0.25  # of the documents, to judge on


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A probe, and how it ranks tokens of documents that it did not learn from."""

    layer: int  # the model's, from 0
    probe: Probe
    changed: float  # share of the tokens that would change
    auroc: float
    free: dict[str, float]  # AUROC of each score that needs no probe, in the direction that ranked the training better
    scores: dict[str, FreeScore]  # what each of these means as a risk

    @property
    def best_free(self) -> str:
        return max(FREE, key=lambda name: self.free[name])

    @property
    def admitted(self) -> bool:
        return self.auroc > self.free[self.best_free]

    @property
    def serves(self) -> str | None:
        """`probe`, else the best of what is free; None where that ranks no better than chance."""
        if self.admitted:
            return "probe"
        return self.best_free if self.free[self.best_free] > CHANCE else None


def train_probes(states: States, *, held_out: float = HELD_OUT, seed: int = 0) -> list[Judged]:
    """One a layer, in order. UsageError where at some layer no token, or every one, would change."""
    learn, judge = states.split(held_out)
    found = []
    for layer, seen in sorted(learn.layers.items()):
        probe = fit(seen.x.float(), learn.masked, learn.t, seen.changed, seed=seed)
        held = judge.layers[layer]
        free = {}
        for name in FREE:
            upward = auroc(seen.free[name], seen.changed) >= 0.5
            free[name] = auroc(held.free[name] if upward else -held.free[name], held.changed)
        risk = probe(held.x.float(), judge.masked, judge.t)
        found.append(
            Judged(
                layer=layer,
                probe=probe,
                changed=float(held.changed.float().mean()),
                auroc=auroc(risk, held.changed),
                free=free,
                scores={name: calibrated(name, seen.free[name], seen.changed) for name in FREE},
            )
        )
    return found
