"""Probes for the layers of a model, each admitted only where it beats what is free."""

from __future__ import annotations

from dataclasses import dataclass

from diffulex_edge.sedac.probe import Probe, auroc, fit
from diffulex_edge.tuning.states import FREE, States


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A probe, and how it ranks tokens of documents that it did not learn from."""

    layer: int  # the model's, from 0
    probe: Probe
    changed: float  # share of the tokens that would change
    auroc: float
    free: dict[str, float]  # AUROC of each score that needs no probe, in the direction that ranked the training better

    @property
    def best_free(self) -> str:
        return max(FREE, key=lambda name: self.free[name])

    @property
    def admitted(self) -> bool:
        return self.auroc > self.free[self.best_free]


def train_probes(states: States, *, held_out: float = 0.25, seed: int = 0) -> list[Judged]:
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
            )
        )
    return found
