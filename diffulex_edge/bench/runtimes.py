"""`bench --runtimes`: one model in every engine that is here, one denoise step and a whole text each, over the floor.

An engine is a Denoiser: the model itself, cast, compiled or quantised, or a program made of it for this measurement.
A step looks at a block of T hidden tokens as a text's first and gives logits of them all. Engines take turns, A B A B,
and ratios come from pairs. Processor time is that of all threads; wall time counts where there are more than one.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffulex_edge.bench.aot import AotProgram
from diffulex_edge.bench.environment import environment
from diffulex_edge.bench.flops import count_flops
from diffulex_edge.bench.llama_cpp import LlamaCpp
from diffulex_edge.bench.progress import bar
from diffulex_edge.bench.statistics import paired_bootstrap
from diffulex_edge.bench.steps import weight_bytes
from diffulex_edge.errors import BackendUnavailable, UsageError
from diffulex_edge.export.config import ExportConfig
from diffulex_edge.export.exporter import export
from diffulex_edge.export.openvino_ir import IR
from diffulex_edge.machine import NUMBER_TYPES, bandwidth, gemm_rate, int8_rate, timed
from diffulex_edge.model.base import Context, Denoiser, DenoiserSpec
from diffulex_edge.model.compiled import compiled
from diffulex_edge.quant import find_scheme
from diffulex_edge.quant.quantizer import is_quantized, quantize
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.pte import PteDenoiser

KINDS = ("memory", "kv", "canvas")  # of context, the first that a model has


@dataclass(eq=False)
class OutsideReveal:
    """A program whose logits come out, to be revealed here: what a step costs without the reveal inside."""

    inner: Denoiser
    spec: DenoiserSpec = field(init=False)

    def __post_init__(self) -> None:
        self.spec = self.inner.spec

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Context:
        return self.inner.begin(kind, batch_size, length, first)

    def __call__(self, block: Tensor, context: Context | None = None, **options: Any) -> tuple[Tensor, Context]:
        return self.inner(block, context, **options)


@dataclass(eq=False)
class PublishedReveal(OutsideReveal):
    """The same, revealed as LLaDA's generate.py does: the best of every position, softmax of all in float64."""

    banned: tuple[int, ...]

    def reveal(
        self, block: Tensor, context: Context, *, t: Tensor, depth: int, asked: int, count: int, threshold: float
    ) -> tuple[Tensor, Tensor, Context]:
        logits, context = self.inner(block, context, t=t, depth=depth)
        logits[..., list(self.banned)] = -torch.inf
        token = logits.argmax(-1)
        probability = logits.double().softmax(-1).gather(-1, token[..., None])[..., 0]
        hidden = (block == self.spec.mask_id) & (torch.arange(block.shape[1]) < asked)
        sure = torch.where(hidden, probability, -torch.inf)
        best = torch.zeros_like(hidden).scatter(1, sure.topk(count).indices, True)
        shown = hidden & (best | (probability >= threshold))
        return torch.where(shown, token, block), probability.float(), context


@dataclass(frozen=True)
class Place:
    """What an engine is made for."""

    kind: str  # of context
    length: int  # tokens of the block
    folder: Path  # for programs
    text: int | None = None  # tokens of the text, in whole blocks; None: one block
    banned: tuple[int, ...] = ()  # ids that are never shown, beside the mask

    def program(self, model: Any, scheme: str | None, backend: str) -> PteDenoiser:
        path = self.folder / f"{backend}-{scheme}-{self.length}.pte"
        if not path.exists():
            size: dict[str, Any] = {"block_size": self.length, "max_length": self.text or self.length}
            shape = ExportConfig(backend=backend, quantization=scheme, context=self.kind, **size)
            export(model, path, shape, {}, self.banned)
        return PteDenoiser(path, threads=torch.get_num_threads())


def _cast(name: str) -> Callable[[Any, Place], Denoiser]:
    return lambda model, place: copy.deepcopy(model).to(NUMBER_TYPES[name])


def _quantized(name: str) -> Callable[[Any, Place], Denoiser]:
    return lambda model, place: quantize(model, find_scheme(name))


def _program(scheme: str | None, backend: str = "xnnpack") -> Callable[[Any, Place], Denoiser]:
    return lambda model, place: place.program(model, scheme, backend)


def _outside(scheme: str | None) -> Callable[[Any, Place], Denoiser]:
    return lambda model, place: OutsideReveal(place.program(model, scheme, "xnnpack"))


def _published(model: Any, place: Place) -> Denoiser:
    inner = place.program(model, "dynamic_int8", "xnnpack")
    return PublishedReveal(inner, inner.banned)


def _aot(name: str) -> Callable[[Any, Place], Denoiser]:
    """Of the backend whose graph it shares, only the spelling."""

    def make(model: Any, place: Place) -> Denoiser:
        shape: dict[str, Any] = {"context": place.kind, "block_size": place.length, "max_length": place.length}
        return PteDenoiser(AotProgram(_cast(name)(model, place), ExportConfig(backend=IR, **shape), place.folder))

    return make


ENGINES: dict[str, Callable[[Any, Place], Denoiser]] = {
    "eager": lambda model, place: model,
    "eager-bf16": _cast("bf16"),
    "compiled": lambda model, place: compiled(model),
    "compiled-bf16": lambda model, place: compiled(_cast("bf16")(model, place)),
    "aot": _aot("fp32"),
    "aot-bf16": _aot("bf16"),
    **{f"eager-{name}": _quantized(name) for name in ("dynamic_int8", "weight_only_int8", "dynamic_int4")},
    "xnnpack": _program(None),
    "xnnpack-dynamic_int8": _program("dynamic_int8"),
    "xnnpack-dynamic_int4": _program("dynamic_int4"),
    "xnnpack-logits": _outside(None),
    "xnnpack-dynamic_int8-logits": _outside("dynamic_int8"),
    "xnnpack-dynamic_int8-published": _published,
    "openvino": _program(None, IR),
    "openvino-weight_only_int8": _program("weight_only_int8", IR),
}
QUICK = (
    "eager",
    "eager-bf16",
    "eager-dynamic_int8",
    "xnnpack",
    "xnnpack-dynamic_int8",
    "xnnpack-dynamic_int8-logits",
    "xnnpack-dynamic_int8-published",
    "xnnpack-dynamic_int4",
)


@dataclass(frozen=True, kw_only=True)
class RuntimeBenchConfig:
    runtime_lengths: tuple[int, ...] = (32, 128, 512)  # tokens of a block, which is the whole text
    runtime_engines: tuple[str, ...] = QUICK  # the first is what ratios refer to; compiled engines take minutes
    runtime_rounds: int = 7  # in which each engine takes one step and writes one text
    runtime_steps: int = 8  # reverse steps of a text
    llama_diffusion_cli: Path | None = None  # llama.cpp's llama-diffusion-cli, to be measured beside; LLaDA models only
    llama_types: tuple[str, ...] = ("F32", "BF16", "Q8_0", "Q4_0")  # of its weights

    def __post_init__(self) -> None:
        unknown = [name for name in self.runtime_engines if name not in ENGINES]
        if unknown or not self.runtime_engines:
            raise UsageError(f"runtime_engines: {unknown or 'none'} must be of {', '.join(ENGINES)}")
        if min((*self.runtime_lengths, self.runtime_rounds, self.runtime_steps), default=0) < 1:
            raise UsageError(f"{self.runtime_lengths=}, {self.runtime_rounds=}, {self.runtime_steps=}: at least 1 each")


def benchmark_runtimes(model: Any, config: RuntimeBenchConfig = RuntimeBenchConfig()) -> dict[str, Any]:
    """A row for each length and engine. model: a Denoiser of ours in fp32, on the CPU."""
    if not isinstance(model, nn.Module) or is_quantized(model):
        raise UsageError(f"{type(model).__name__}: engines are made of a model in floating point, by --ckpt")
    model = copy.deepcopy(model).float()
    kind = next((kind for kind in KINDS if kind in model.spec.contexts), None)
    if kind is None:
        raise UsageError(f"{type(model).__name__} has no context of {', '.join(KINDS)}")
    rates = {"fp32": gemm_rate(torch.float32, 1024, 0.3), "bf16": gemm_rate(torch.bfloat16, 1024, 0.3)}
    rates["int8"] = int8_rate()
    rows = []
    with TemporaryDirectory(prefix="runtimes-") as folder:
        peer = LlamaCpp.of(model, config.llama_diffusion_cli, config.llama_types, Path(folder))
        for length in config.runtime_lengths:
            rows.append(_length(model, Place(kind, length, Path(folder)), rates, peer, config))
    return {
        "baseline": config.runtime_engines[0],
        "context": kind,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rates_gflops_per_s": {name: rate / 1e9 for name, rate in rates.items()},
        "lengths": rows,
        "environment": environment(torch.float32),
    }


def _length(
    model: Any, place: Place, rates: dict[str, float], peer: LlamaCpp | None, config: RuntimeBenchConfig
) -> dict[str, Any]:
    sides, errors, missing = _engines(model, place, config)
    plans = {name: _plan(side, place, config) for name, side in sides.items()}
    flops = count_flops(lambda: _look(model, place))
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in sides}
    with bar(f"steps and texts of {place.length} tokens", config.runtime_rounds + 1) as advance:
        for turn in range(-1, config.runtime_rounds):
            for name, side in sides.items():
                step = timed(lambda side=side: _look(side, place))  # type: ignore[misc]
                text = timed(lambda side=side, plan=plans[name]: _write(side, place, plan))  # type: ignore[misc]
                times[name] += [(*step, *text)] if turn >= 0 else []
            if peer is not None:
                peer.turn(place.length, counts=turn >= 0)
            advance(1)
    base = np.array([each[0] for each in times[config.runtime_engines[0]]])
    rows = [_row(name, np.array(each), base, errors[name], place.length) for name, each in times.items()]
    size, speed = weight_bytes(model), bandwidth()
    weights = {"fp32": size, "bf16": size / 2, "int8": size / 4}
    return {
        "length": place.length,
        "gflop": flops / 1e9,
        "floor_ms": {name: 1e3 * max(flops / rate, weights[name] / speed) for name, rate in rates.items()},
        "engines": rows,
        "missing": missing,
        "llama_cpp": [] if peer is None else peer.rows(place.length),
    }


def _engines(
    model: Any, place: Place, config: RuntimeBenchConfig
) -> tuple[dict[str, Denoiser], dict[str, float], dict[str, str]]:
    """Those that are here and take one look; the error of that look; and why others are missing."""
    sides: dict[str, Denoiser] = {}
    errors: dict[str, float] = {}
    missing: dict[str, str] = {}
    right = _look(model, place)
    with bar(f"making engines for {place.length} tokens", len(config.runtime_engines)) as advance:
        for name in config.runtime_engines:
            try:
                side = ENGINES[name](model, place)
                errors[name] = _error(_look(side, place), right)
                sides[name] = side
            except BackendUnavailable as error:
                missing[name] = str(error)
            advance(1)
    if config.runtime_engines[0] in missing:
        raise BackendUnavailable(missing[config.runtime_engines[0]])
    return sides, errors, missing


def _plan(side: Denoiser, place: Place, config: RuntimeBenchConfig) -> Plan:
    """One block; no end of text, so that all write as much."""
    return plan_for(side.spec, context=place.kind, block_size=place.length, steps=config.runtime_steps, stop_ids=())


@torch.inference_mode()
def _look(side: Denoiser, place: Place) -> Tensor:
    """Logits (T, V) of a block of masks."""
    block = torch.full((1, place.length), side.spec.mask_id)
    context = side.begin(place.kind, 1, place.length).facing(block[:, :0])
    rows = torch.ones_like(block, dtype=torch.bool)
    logits, _ = side(block, context, t=torch.ones(1), rows=rows)
    return logits


def _write(side: Denoiser, place: Place, plan: Plan) -> None:
    finish(decode(side, [[side.spec.mask_id] * place.length], plan))


def _error(found: Tensor, right: Tensor) -> float:
    """||found - right|| / ||right||."""
    return float((found.float() - right).norm() / right.norm())


def _row(name: str, times: Any, base: Any, error: float, length: int) -> dict[str, Any]:
    """times (rounds, 4): processor and wall seconds of a step, then of a text."""
    cpu, wall, text_cpu, text_wall = (statistics.median(column) for column in times.T.tolist())
    return {
        "engine": name,
        "step_cpu_ms": 1e3 * cpu,
        "step_wall_ms": 1e3 * wall,
        "times_baseline": vars(paired_bootstrap(times[:, 0], base)),
        "relative_error": error,
        "text_cpu_ms": 1e3 * text_cpu,
        "text_wall_ms": 1e3 * text_wall,
        "tokens_per_s": length / text_wall,
    }
