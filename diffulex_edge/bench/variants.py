"""What `bench` compares: each variant is a denoiser and a plan. Modes, and sweeps of seed 000 around one of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diffulex_edge.bench.progress import bar
from diffulex_edge.bench.runtimes import ENGINES, KINDS, Place
from diffulex_edge.errors import BackendUnavailable, UsageError
from diffulex_edge.machine import NUMBER_TYPES
from diffulex_edge.model.base import Denoiser, DenoiserSpec
from diffulex_edge.quant.quantizer import quantize
from diffulex_edge.quant.schemes import find_scheme
from diffulex_edge.runtime.depth import LinearDepth
from diffulex_edge.runtime.plan import Plan, mode_plan


@dataclass(frozen=True, eq=False)
class Variant:
    name: str
    mode: str
    denoiser: Denoiser
    plan: Plan
    block_size: int  # tokens decoded together in block modes; block_nelbo is of such blocks
    number_type: str

    @property
    def settings(self) -> dict[str, Any]:
        depth = self.plan.depth.min_depth if isinstance(self.plan.depth, LinearDepth) else None
        return {
            "mode": self.mode,
            "steps": self.plan.steps,
            "block_size": self.plan.block_size,
            "min_decode_layers": depth,
            "number_type": self.number_type,
            "max_new_tokens": self.plan.max_new_tokens,
        }


@dataclass(frozen=True)
class Skipped:
    name: str
    reason: str


def fit(mode: str, plan: Plan, spec: DenoiserSpec | None = None, *, equal_tokens_per_step: bool, unit: int) -> Plan:
    """The plan in a mode. At equal tokens a step, a longer block takes more: plan.steps are those of `unit` tokens.

    Without it `full` shows new/steps tokens a step and `block` only block/steps, which compares two qualities (seed
    000, F2).
    """
    fitted = mode_plan(mode, plan, spec)
    if not equal_tokens_per_step:
        return fitted
    return replace(fitted, steps=-(-min(fitted.block_size, plan.max_new_tokens) // unit) * plan.steps)


def modes(
    denoiser: Denoiser, plan: Plan, names: tuple[str, ...], number_type: str, *, equal_tokens_per_step: bool
) -> Iterator[Variant | Skipped]:
    for mode in names:
        fitted = fit(mode, plan, denoiser.spec, equal_tokens_per_step=equal_tokens_per_step, unit=plan.block_size)
        if fitted.context not in denoiser.spec.contexts:
            yield Skipped(
                mode, f"the model has no context {fitted.context}; it has {', '.join(denoiser.spec.contexts)}"
            )
        else:
            yield Variant(mode, mode, denoiser, fitted, plan.block_size, number_type)


@dataclass(frozen=True)
class Sweeper:
    """Makes the variants of a sweep from the base variant; `plan` is that of the base before it was put in its mode."""

    base: Variant
    plan: Plan
    equal_tokens_per_step: bool
    folder: Path  # for programs, which are read as long as they are run
    longest: int  # tokens that a program must take

    def steps(self) -> Iterator[Variant]:
        for steps in (4, 6, 8, 12):
            yield self._variant(f"steps {steps}", replace(self.plan, steps=steps))

    def block(self) -> Iterator[Variant]:
        for size in (32, 64, 96):
            yield self._variant(f"block {size}", replace(self.plan, block_size=size))

    def depth(self) -> Iterator[Variant | Skipped]:
        n_layers = self.base.denoiser.spec.n_layers
        for least in (0, 2, 4):
            name = f"min_decode_layers {least}"
            if least > n_layers:
                yield Skipped(name, f"the model has {n_layers} layers")
            else:
                yield self._variant(name, replace(self.plan, depth=LinearDepth(least)))

    def quant(self) -> Iterator[Variant | Skipped]:
        for name, convert in NUMBERS.items():
            try:
                converted = convert(self.base.denoiser)
            except BackendUnavailable as error:
                yield Skipped(name, str(error))
            else:
                yield replace(self._variant(name, self.plan), denoiser=converted, number_type=name)

    def engine(self) -> Iterator[Variant | Skipped]:
        """The same plan in programs of the same weights, which are made here and take minutes each."""
        base, context = self.base, self.base.plan.context
        if context not in KINDS:
            yield Skipped(f"{base.mode}, programs", f"none has a context {context}; they have {', '.join(KINDS)}")
            return
        with bar("making programs", len(PROGRAMS)) as advance:
            for program in PROGRAMS:
                name = f"{base.mode}, {program}"
                try:
                    yield replace(in_program(base, program, self.longest, self.folder), name=name)
                except BackendUnavailable as error:
                    yield Skipped(name, str(error))
                advance(1)

    def _variant(self, name: str, plan: Plan) -> Variant:
        spec, equal = self.base.denoiser.spec, self.equal_tokens_per_step
        fitted = fit(self.base.mode, plan, spec, equal_tokens_per_step=equal, unit=self.plan.block_size)
        title = f"{self.base.mode}, {name}"
        return replace(self.base, name=title, plan=fitted, block_size=plan.block_size)


SWEEPS: dict[str, Callable[[Sweeper], Iterator[Variant | Skipped]]] = {
    "steps": Sweeper.steps,
    "block": Sweeper.block,
    "depth": Sweeper.depth,
    "quant": Sweeper.quant,
    "engine": Sweeper.engine,
}
PROGRAMS = {"xnnpack": "fp32", "openvino": "fp32", "xnnpack-dynamic_int8": "int8"}  # and what they compute in


def in_program(variant: Variant, program: str, longest: int, folder: Path) -> Variant:
    """The variant in one of PROGRAMS, which is made here, for texts of `longest` tokens and its plan's ids.

    Raises BackendUnavailable where what makes or runs it is not installed.
    """
    plan = variant.plan
    text = -(-longest // plan.block_size) * plan.block_size
    place = Place(plan.context, plan.block_size, folder, text=text, banned=plan.banned)
    made = ENGINES[program](_checked(variant.denoiser), place)
    return replace(variant, denoiser=made, number_type=PROGRAMS[program])


def _cast(dtype: torch.dtype) -> Callable[[Denoiser], Denoiser]:
    return lambda denoiser: copy.deepcopy(_checked(denoiser)).to(dtype)


def _dynamic_int8(denoiser: Denoiser) -> Denoiser:
    found: Denoiser = quantize(denoiser, find_scheme("dynamic_int8"))
    return found


def _checked(denoiser: Denoiser) -> Any:
    if not isinstance(denoiser, torch.nn.Module):
        raise UsageError(f"{type(denoiser).__name__} is not a torch module: it cannot be converted")
    return denoiser


NUMBERS: dict[str, Callable[[Denoiser], Denoiser]] = {
    **{name: _cast(dtype) for name, dtype in NUMBER_TYPES.items()},
    "int8": _dynamic_int8,
}
