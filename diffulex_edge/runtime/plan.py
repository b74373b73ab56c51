"""How to decode: a frozen value of independent choices. It knows no model; the loop in decode.py carries it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from diffulex_edge.diffusion.schedule import Linear, NoiseSchedule, find_schedule
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import DenoiserSpec
from diffulex_edge.runtime.depth import DepthSchedule, LinearDepth
from diffulex_edge.runtime.quota import BySchedule, Quota
from diffulex_edge.runtime.reveal import Reveal, RevealTop
from diffulex_edge.runtime.sampler import Greedy, Sampler
from diffulex_edge.runtime.step import ExitController, Step
from diffulex_edge.runtime.suffix import Suffix, WholeSuffix


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `decode` does with a prompt. Ids that a plan names must be below the model's vocabulary size."""

    max_new_tokens: int = 128  # tokens added to a prompt; a prompt with masks is filled and not added to
    block_size: int = 32  # tokens decoded together
    steps: int = 12  # reverse steps a block, at most; never more than the block has masks
    context: str = "memory"  # what is remembered of the text before a block: a kind that the model has
    schedule: NoiseSchedule = Linear()  # share of the tokens that is hidden at a time
    quota: Quota = BySchedule()  # how many tokens a step shows
    sampler: Sampler = Greedy()  # which token a position takes
    reveal: Reveal = RevealTop()  # which positions are shown, and which hidden again
    suffix: Suffix = WholeSuffix()  # how much of the text ahead of a block a canvas reads
    depth: DepthSchedule = LinearDepth()  # how many layers a step runs
    exit: ExitController | None = None  # what ends a step's layers early, or thins them out (SEDAC)
    stop_ids: tuple[int, ...] = ()  # a row ends at the first of these that is decoded
    banned: tuple[int, ...] = ()  # never decoded; the mask id never is, named or not
    seed: int = 0  # the same seed gives the same text

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 0), ("block_size", 1), ("steps", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise UsageError(f"{name}={value} must be an integer of at least {least}")
        if self.seed >= 2**63:
            raise UsageError(f"seed={self.seed} must be below 2^63")
        for name in ("stop_ids", "banned"):
            wrong = [value for value in getattr(self, name) if not isinstance(value, int) or value < 0]
            if wrong:
                raise UsageError(f"{name} holds {wrong[0]}: ids are integers of at least 0")

    def ban(self, ids: Iterable[int]) -> Self:
        """The plan that never decodes these ids either."""
        return replace(self, banned=(*self.banned, *ids))

    def reverse_steps(self, masked: Tensor, spec: DenoiserSpec) -> Iterator[Step]:
        """The steps of a block of which each row has `masked` (B,) tokens hidden, the noisiest first.

        A row of n masks takes min(steps, n) of them, whatever the other rows take, so that a batch decodes as its rows
        alone do. Only the depth is shared: the deepest that any row, alone, would have at this step. So no row runs
        shallower than alone, and where all take as many steps, or the depth is constant, each runs just as deep. One
        more step follows, the fallback: it is reached only where a reveal left something hidden.
        """
        counts = masked.tolist()
        steps = min(self.steps, max(counts))
        taken = masked.clamp(1, max(steps, 1))  # (B,)
        shares = [self.quota.split(n, min(n, steps), self.schedule) if n else [] for n in counts]  # exact integers
        quotas = torch.tensor([share + [0] * (steps + 1 - len(share)) for share in shares], device=masked.device)
        lengths = {min(n, steps) for n in counts if n}  # in steps, of the rows
        index = torch.arange(steps + 1, device=masked.device)[:, None]
        done = torch.minimum(taken - 1, index)  # (steps + 1, B)
        values = zip(1 - done / taken, 1 - (done + 1) / taken, quotas.mT, taken <= index + 1, strict=True)
        for i, (t, s, quota, last) in enumerate(values):
            deep = [self.depth.layers(i, own, spec.n_layers) for own in lengths if i < own]
            depth = max(deep, default=spec.n_layers)
            yield Step(index=i, steps=steps, t=t, s=s, depth=depth, quota=quota, last=last)


def plan_for(spec: DenoiserSpec, **wishes: Any) -> Plan:
    """The plan with the fields that are wished for; a wish of None, and what is not named, is as the model was trained.

    Where the model says nothing either, the plan's own default holds.
    """
    kinds = tuple(spec.contexts)
    trained = {
        "schedule": find_schedule(spec.mask_schedule),
        "steps": spec.sample_steps,
        "context": kinds[0] if kinds and Plan.context not in kinds else None,
        "block_size": spec.block_length,
    }
    given = {name: value for name, value in wishes.items() if value is not None}
    return Plan(**{name: value for name, value in {**trained, **given}.items() if value is not None})


def _full(plan: Plan, spec: DenoiserSpec | None) -> Plan:
    unit = (spec and spec.block_length) or 1
    size = -(-max(plan.max_new_tokens, 1) // unit) * unit
    return replace(plan, context=_whole(spec), block_size=size)


def _block(plan: Plan, spec: DenoiserSpec | None) -> Plan:
    return replace(plan, context=_whole(spec))


def _whole(spec: DenoiserSpec | None) -> str:
    """The context that sees all of the text before a block; models trained for none of the modes have their own."""
    return "full" if spec is None or spec.trained_modes or not spec.contexts else next(iter(spec.contexts))


def _in(kind: str) -> Callable[[Plan, DenoiserSpec | None], Plan]:
    return lambda plan, spec: replace(plan, context=kind)


MODES: dict[str, Callable[[Plan, DenoiserSpec | None], Plan]] = {
    "full": _full,
    "block": _block,
    "block_frozen": _in("memory"),
    **{kind: _in(kind) for kind in ("kv", "canvas", "dual", "prefix")},
}


def mode_plan(mode: str, plan: Plan = Plan(), spec: DenoiserSpec | None = None) -> Plan:
    """The plan turned into a mode of seed 000: all at once, block by block, or block by block against frozen memory.

    Or block by block in the context of the name: kv, canvas and its approximate caches.

    spec: of the model that is to decode; one that was trained for none of the modes keeps its own context, and a
    block-causal one its own grid. An autoregressive one writes one token at a time in any mode.
    """
    if mode not in MODES:
        raise UsageError(f"mode {mode!r} is not one of {', '.join(MODES)}")
    fitted = MODES[mode](plan, spec)
    return replace(fitted, block_size=1, steps=1) if spec is not None and spec.autoregressive else fitted
