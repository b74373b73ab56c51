"""`bench --sedac`: what SEDAC's controller costs, kernel by kernel, and what a feed-forward of fewer channels saves.

Weights are cold: calls go round copies that together are more than a cache holds. One that stays in the cache makes a
short prefix look two to three times as good as it is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffulex_edge.bench.environment import environment
from diffulex_edge.bench.progress import bar
from diffulex_edge.bench.sedac_noise import noise_resilience
from diffulex_edge.errors import UsageError
from diffulex_edge.machine import NUMBER_TYPES
from diffulex_edge.model.base import NONE
from diffulex_edge.model.layers import SwiGLU
from diffulex_edge.model.soft_exit import Narrowed, masked, staircase
from diffulex_edge.sedac import NO_EXIT, SEED_LAYERS, CascadeController
from diffulex_edge.sedac.kernel import NumpyKernel
from diffulex_edge.sedac.native import RustKernel, core
from diffulex_edge.sedac.tensors import begin, step, tensor_layers

COLD = 64 << 20  # bytes of weights that calls go round


@dataclass(frozen=True, kw_only=True)
class SedacBenchConfig:
    cascade_tokens: tuple[int, ...] = (1, 8, 64, 512, 4096, 16384, 65536)
    ffn_tokens: tuple[int, ...] = (1, 8, 32, 64)
    ffn_shapes: tuple[tuple[int, int], ...] = ((1024, 4096),)  # width and channels; the model's own comes on top
    ffn_type: str = "fp32"  # or bf16
    sedac_rounds: int = 15  # interleaved measurements of each

    def __post_init__(self) -> None:
        sizes = (*self.cascade_tokens, *self.ffn_tokens, *(n for shape in self.ffn_shapes for n in shape))
        if min(sizes, default=1) < 1 or self.sedac_rounds < 1:
            raise UsageError("tokens, shapes and sedac_rounds must be at least 1")
        if self.ffn_type not in NUMBER_TYPES:
            raise UsageError(f"ffn_type={self.ffn_type!r} is not one of {', '.join(NUMBER_TYPES)}")


@torch.inference_mode()
def benchmark_sedac(denoiser: Any, config: SedacBenchConfig) -> dict[str, Any]:
    """Microseconds of the cascade by kernel, with its share of a step; milliseconds of feed-forwards over the whole."""
    ff = denoiser.layers[0].ff
    own = (ff.gate_up.weight.shape[1], ff.down.weight.shape[1])
    shapes = list(dict.fromkeys((*config.ffn_shapes, own)))
    with bar("sedac", len(config.cascade_tokens) + len(config.ffn_tokens) * len(shapes)) as advance:
        cascade = []
        for n in config.cascade_tokens:
            cascade.append({"tokens": n, "us": _cascade(n, config.sedac_rounds)})
            advance(1)
        feed_forward = []
        for shape in shapes:
            copies = _copies(shape, NUMBER_TYPES[config.ffn_type])
            for n in config.ffn_tokens:
                row = {"width": shape[0], "channels": shape[1], "tokens": n}
                feed_forward.append({**row, **_feed_forward(copies, n, config.sedac_rounds)})
                advance(1)
    step_us = _step(denoiser, config.sedac_rounds)
    return {
        "environment": environment(NUMBER_TYPES[config.ffn_type]),
        "step_us": step_us,
        "step_tokens": 32,
        "number_type": config.ffn_type,
        "cascade": cascade,
        "feed_forward": feed_forward,
        "noise": noise_resilience(),
    }


def _cascade(n: int, rounds: int) -> dict[str, float]:
    """Medians, in microseconds of a batch through the seed's three checkpoints."""
    risk = np.random.default_rng(0).random((n, 3), np.float32) * np.float32(1.5)
    kernels = {"NumPy": CascadeController(SEED_LAYERS, kernel=NumpyKernel)}
    if core() is not None:
        kernels["Rust"] = CascadeController(SEED_LAYERS, kernel=RustKernel)
    runs: dict[str, Callable[[], object]] = {name: _batch(one, risk) for name, one in kernels.items()}
    layers = list(tensor_layers(kernels["NumPy"]).values())
    columns = list(torch.from_numpy(risk).T.contiguous())

    def by_tensors() -> None:
        state = begin(columns[0])
        for layer, column in zip(layers, columns, strict=True):
            state = step(state.confidence, state.exited, column, layer)

    runs["torch"] = by_tensors
    seconds = _in_turn(runs, rounds, at_least=1e-3)
    return {name: 1e6 * statistics.median(taken) for name, taken in seconds.items()}


def _batch(controller: CascadeController, risk: Any) -> Callable[[], object]:
    """The kernel into arrays that are there already: what a caller in a loop has."""
    exit_layer = np.empty(len(risk), np.int32)
    confidence, ratio = np.empty(len(risk), np.float32), np.empty(len(risk), np.float32)

    def run() -> None:
        exit_layer.fill(NO_EXIT)
        confidence.fill(0)
        ratio.fill(0)
        controller.kernel.evaluate(risk, exit_layer, confidence, ratio)

    return run


def _copies(shape: tuple[int, int], dtype: torch.dtype) -> list[SwiGLU]:
    width, channels = shape
    size = 3 * width * channels * dtype.itemsize
    made = []
    for _ in range(max(2, -(-COLD // size))):
        ff = SwiGLU(width, channels).to(dtype)
        torch.nn.init.normal_(ff.down.weight, std=0.02)
        made.append(ff)
    return made


def _feed_forward(copies: Sequence[SwiGLU], n: int, rounds: int) -> dict[str, Any]:
    """The whole in milliseconds, and the median of the others over it, pair by pair."""
    dtype = copies[0].down.weight.dtype
    x = torch.randn(1, n, copies[0].gate_up.weight.shape[1]).to(dtype)
    quarter = torch.linspace(0.25, 1, 4)[torch.arange(n) % 4][None]
    shares = {
        "mask 50 %": (masked, torch.full((1, n), 0.5)),
        "keep 75 %": (staircase, torch.full((1, n), 0.75)),
        "keep 50 %": (staircase, torch.full((1, n), 0.5)),
        "keep 25 %": (staircase, torch.full((1, n), 0.25)),
        "keep 25, 50, 75, 100 %": (staircase, quarter),
    }
    turn = iter(range(1 << 62))
    runs: dict[str, Callable[[], object]] = {"whole": lambda: copies[next(turn) % len(copies)](x)}
    for name, (way, share) in shares.items():
        runs[name] = partial(_once, way, copies, turn, x, share)
    seconds = _in_turn(runs, rounds, at_least=4e-3)
    whole = seconds.pop("whole")
    of_whole = {
        name: statistics.median(a / b for a, b in zip(taken, whole, strict=True)) for name, taken in seconds.items()
    }
    return {"whole_ms": 1e3 * statistics.median(whole), "of_whole": of_whole}


def _once(way: Narrowed, copies: Sequence[SwiGLU], turn: Iterator[int], x: Tensor, share: Tensor) -> Tensor:
    return way(copies[next(turn) % len(copies)], x, share)


def _step(denoiser: Any, rounds: int) -> float:
    """Microseconds of a look of the model at a block of 32 hidden tokens behind a remembered one, all rows."""
    kind = next(iter(denoiser.spec.contexts))
    block = torch.full((1, 32), denoiser.spec.mask_id)
    _, context = denoiser(torch.zeros_like(block), denoiser.begin(kind, 1, 64), rows=NONE)
    rows = torch.ones_like(block, dtype=torch.bool)
    look = {"step": lambda: denoiser(block, context, t=torch.ones(1), rows=rows)}
    return 1e6 * statistics.median(_in_turn(look, rounds, at_least=4e-3)["step"])


def _in_turn(runs: dict[str, Callable[[], object]], rounds: int, at_least: float) -> dict[str, list[float]]:
    """Seconds a call, A B A B, each measurement of so many calls that it takes `at_least` seconds."""
    calls = {}
    for name, run in runs.items():
        run()
        calls[name] = 1
        while (taken := _timed(run, calls[name])) < at_least:
            calls[name] = max(calls[name] * 2, int(calls[name] * at_least / max(taken, 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(_timed(run, calls[name]) / calls[name])
    return seconds


def _timed(run: Callable[[], object], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - began
