"""The four stages of fitting SEDAC to a model, each from files to files in one folder: what the verb `sedac` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.files import read_sealed_json, sha256_file, write_sealed_json
from diffulex_edge.model.soft_exit import importance
from diffulex_edge.runtime.cascading import Cascading
from diffulex_edge.runtime.exit_file import (
    cascade_of,
    factor_of,
    note_watch,
    promise,
    read_exits,
    read_kinds,
    read_probes,
    tuples,
    weights_digest,
    write_exits,
)
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.text.corpus import Document
from diffulex_edge.text.tokenizer import Tokenizer
from diffulex_edge.tuning.cascade_fit import learn_cascade
from diffulex_edge.tuning.exit_curve import exit_curve
from diffulex_edge.tuning.exits import Promise, calibrate_exits, watch_exits
from diffulex_edge.tuning.risk import HELD_OUT, Judged, train_probes
from diffulex_edge.tuning.states import States, collect, read_states, write_states

STATES, COLLECTED = "states.safetensors", "collected.json"
Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class ExitTexts:
    """Which texts are continued."""

    prompts: int = 200  # windows of the documents that are continued, at most
    prompt_tokens: int = 64  # of each window, given
    exit_tokens: int = 64  # written behind it

    def __post_init__(self) -> None:
        for name in ("prompts", "prompt_tokens", "exit_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")

    def windows(self, documents: Iterable[Document], tokenizer: Tokenizer) -> list[list[int]]:
        """Prompts of exactly `prompt_tokens`: document by document, none overlapping what is written behind another."""
        found = list(islice(self._all(documents, tokenizer), self.prompts))
        if not found:
            raise UsageError(f"no document has {self.prompt_tokens + self.exit_tokens} tokens")
        return found

    def _all(self, documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[list[int]]:
        stride = self.prompt_tokens + self.exit_tokens
        for document in documents:
            ids = tokenizer.encode(document.text)
            for start in range(0, len(ids) - stride + 1, stride):
                yield ids[start : start + self.prompt_tokens]


def collect_into(
    folder: Path,
    denoiser: Any,
    prompts: Sequence[list[int]],
    plan: Plan,
    advance: Advance,
    kinds: Tensor | None = None,
) -> Any:
    """States of the model's own decoding, and the order of its channels by how much they add on the way.

    kinds (V,): of each token, which its neighbours' states are told with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seen: list[States] = []
    layers = range(min(1, denoiser.spec.n_layers - 2), denoiser.spec.n_layers - 1)
    weights = importance(
        denoiser.layers, lambda: seen.append(collect(denoiser, prompts, plan, layers, advance, kinds=kinds))
    )
    orders = [weight.argsort(descending=True, stable=True) for weight in weights]
    write_states(folder / STATES, seen[0], orders)
    facts = {
        "model": weights_digest(denoiser),
        "states": sha256_file(folder / STATES),
        "prompts": len(prompts),
        "tokens": len(seen[0].t),
        "layers": list(layers),
        "steps": plan.steps,
        "block_size": plan.block_size,
        "context": plan.context,
    }
    write_sealed_json(folder / COLLECTED, facts)
    return facts


def train_in(folder: Path, denoiser: Any, kinds: Tensor | None = None) -> dict[str, Any]:
    """Probes from the states. Where one does not beat what is free, the best of that serves; or nothing, by chance.

    Where all probes are admitted, the numbers of a cascade too. kinds (V,): those that the states were collected with.
    """
    facts = read_sealed_json(folder / COLLECTED)
    if facts["states"] != sha256_file(folder / STATES):
        raise UsageError(f"{folder / STATES} is not what {COLLECTED} tells of: collect again")
    if facts["model"] != weights_digest(denoiser):
        raise UsageError(f"{folder} was collected from other weights than the model's")
    states, orders = read_states(folder / STATES)
    judged = train_probes(states)
    admitted = {one.layer: one.probe for one in judged if one.admitted}
    free = {one.layer: one.scores[one.serves] for one in judged if one.serves in one.scores}
    rows = [_row(one) for one in judged]
    if not admitted and not free:
        raise UsageError("nothing ranks tokens better than chance: exits would gain nothing")
    collected = {name: facts[name] for name in ("prompts", "tokens", "steps", "block_size", "context")}
    learned = None
    if not free and len(admitted) == len(judged):
        learned = learn_cascade(*states.split(HELD_OUT), admitted, 0 if kinds is None else int(kinds.max()))
    told = {"layers": rows, "collected": collected, "learned": learned}
    write_exits(folder, denoiser, admitted, orders, told, free, kinds)
    return {"layers": rows, "learned": learned}


def _row(one: Judged) -> dict[str, Any]:
    return {
        "layer": one.layer,
        "changed": one.changed,
        "auroc": one.auroc,
        "best_free": one.best_free,
        "free": one.free,
        "admitted": one.admitted,
        "serves": one.serves,
    }


def calibrate_in(
    folder: Path,
    denoiser: Any,
    prompts: Sequence[list[int]],
    plan: Plan,
    wanted: Promise,
    cascade: Cascading,
    advance: Advance,
) -> dict[str, Any]:
    """Learn then Test on prompts that no probe learned from; what was found is written into the folder."""
    wanted.check(len(prompts))
    if cascade.learned:
        learned = read_exits(folder).get("learned")
        if learned is None:
            raise UsageError(f"{folder}: no cascade was learned: `sedac train` does, where it admits all probes")
        cascade = replace(cascade, **tuples(learned["numbers"]))
    probes, kinds = read_probes(folder, denoiser), read_kinds(folder)
    found = calibrate_exits(denoiser, probes, prompts, plan, wanted, cascade, advance, kinds=kinds)
    promise(folder, found, cascade)
    return found


def watch_in(folder: Path, denoiser: Any, prompts: Sequence[list[int]], plan: Plan, advance: Advance) -> dict[str, Any]:
    """Spot checks on newer texts: where more changes than was promised, the folder's exits become more careful."""
    facts = read_exits(folder)
    calibration = facts["calibration"]
    if calibration is None or calibration["scale"] is None:
        raise UsageError(f"{folder}: no exits to watch: `sedac calibrate` has allowed none")
    if not prompts:
        raise UsageError("there is nothing to watch: no text was given")
    cascade, probes, kinds = cascade_of(facts), read_probes(folder, denoiser), read_kinds(folder)
    found = watch_exits(denoiser, probes, prompts, plan, calibration, cascade, factor_of(facts), advance, kinds=kinds)
    note_watch(folder, found)
    return {"watch": found, "calibration": calibration}


def report_of(
    folder: Path, denoiser: Any, prompts: Sequence[list[int]], plan: Plan, advance: Advance
) -> dict[str, Any]:
    """What the folder holds; and, where prompts are given, speed against change, measured here and now."""
    facts = read_exits(folder)
    if not prompts:
        return facts
    probes, kinds = read_probes(folder, denoiser), read_kinds(folder)
    curve = exit_curve(denoiser, probes, prompts, plan, cascade_of(facts), advance, kinds=kinds)
    return {**facts, "curve": curve}
