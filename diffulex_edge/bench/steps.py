"""How long a denoise step takes, over its floor: the larger of its arithmetic and of reading the weights once.

The arithmetic is counted by PyTorch's FLOP counter, at the best rate of matrix products of that number type; the
bandwidth is that of adding up an array that no cache holds. All in one run, at one thread count, A B A B.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffulex_edge.bench.environment import environment
from diffulex_edge.bench.flops import count_flops
from diffulex_edge.bench.progress import bar
from diffulex_edge.bench.statistics import paired_bootstrap
from diffulex_edge.bench.twins import twin_step
from diffulex_edge.errors import UsageError
from diffulex_edge.machine import NUMBER_TYPES, bandwidth, gemm_rate
from diffulex_edge.model.base import NONE
from diffulex_edge.model.compiled import compiled

Step = Callable[[], object]


def _eager(model: Any, context: Tensor, block: Tensor) -> Step:
    """Our own step: all rows asked for, against the best cache that the model has."""
    kind = next(kind for kind in ("kv", "memory", "dual") if kind in model.spec.contexts)
    rows = torch.ones_like(block, dtype=torch.bool)
    with torch.inference_mode():
        remembered = model.begin(kind, 1, context.shape[1] + block.shape[1])
        for piece in context.split(block.shape[1] if remembered.aligned else context.shape[1], 1):
            _, remembered = model(piece, remembered, rows=NONE)
        remembered = remembered.facing(block[:, :0])
        _, seen = model(block, remembered, rows=rows)
        remembered = remembered.refresh(seen, None)

    @torch.inference_mode()
    def step() -> object:
        return model(block, remembered, t=torch.ones(1), rows=rows)[0]

    return step


def _compiled(model: Any, context: Tensor, block: Tensor) -> Step:
    return _eager(compiled(model), context, block)


def _twin(model: Any, context: Tensor, block: Tensor) -> Step:
    published = getattr(sys.modules[type(model).__module__], "sizes", None)
    if published is None:
        raise UsageError(f"{type(model).__name__} has no twin in the transformers library: leave `twin` out of engines")
    return twin_step(model, published(model.config), context, block)


ENGINES: dict[str, Callable[[Any, Tensor, Tensor], Step]] = {
    "eager": _eager,
    "compiled": _compiled,
    "twin": _twin,
}


@dataclass(frozen=True, kw_only=True)
class StepBenchConfig:
    lengths: tuple[int, ...] = (32, 128, 512)  # tokens of the block that a step looks at
    context_length: int = 512  # tokens before it
    number_types: tuple[str, ...] = ("fp32", "bf16")
    engines: tuple[str, ...] = ("eager", "twin")  # of eager, compiled, and the transformers class (twin)
    step_rounds: int = 9  # in which each engine takes one step
    gemm_sizes: tuple[int, ...] = (512, 1024, 2048)  # of the matrices whose best rate is the floor's

    def __post_init__(self) -> None:
        for name, choices in (("number_types", NUMBER_TYPES), ("engines", ENGINES)):
            unknown = [value for value in getattr(self, name) if value not in choices]
            if unknown or not getattr(self, name):
                raise UsageError(f"{name}={getattr(self, name)} must be of {', '.join(choices)}")
        if min((*self.lengths, self.context_length, self.step_rounds)) < 1:
            raise UsageError(f"{self.lengths=}, {self.context_length=} and {self.step_rounds=} must be at least 1")


def benchmark_steps(denoiser: Any, config: StepBenchConfig = StepBenchConfig()) -> dict[str, Any]:
    """A row for each number type and length: milliseconds of each engine, and their ratio to the floor."""
    rows = []
    for number in config.number_types:
        model = copy.deepcopy(denoiser).to(NUMBER_TYPES[number])
        rate, speed = _best_rate(NUMBER_TYPES[number], config), bandwidth()
        for length in config.lengths:
            rows.append({"number_type": number, "length": length, **_row(model, length, rate, speed, config)})
    return {"rows": rows, "context_length": config.context_length, "environment": environment(torch.float32)}


def _best_rate(dtype: torch.dtype, config: StepBenchConfig) -> float:
    return max(gemm_rate(dtype, size, seconds=0.3) for size in config.gemm_sizes)


def _row(model: Any, length: int, rate: float, speed: float, config: StepBenchConfig) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    context = torch.randint(0, 256, (1, config.context_length), generator=generator)
    block = torch.randint(0, 256, (1, length), generator=generator)
    steps = {name: ENGINES[name](model, context, block) for name in config.engines}
    flops, size = count_flops(_eager(model, context, block)), weight_bytes(model)
    floor = max(flops / rate, size / speed)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    with bar(f"steps of {length} tokens", config.step_rounds + 2) as advance:
        for warm in range(-2, config.step_rounds):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                seconds[name] += [time.perf_counter() - start] if warm >= 0 else []
            advance(1)
    first = config.engines[0]
    return {
        "floor_ms": 1e3 * floor,
        "floor_is": "arithmetic" if flops / rate >= size / speed else "reading the weights",
        "gflop": flops / 1e9,
        "gemm_gflops_per_s": rate / 1e9,
        "bandwidth_gb_per_s": speed / 1e9,
        "ms": {name: 1e3 * statistics.median(times) for name, times in seconds.items()},
        "over_floor": {name: statistics.median(times) / floor for name, times in seconds.items()},
        f"times_{first}": {
            name: vars(paired_bootstrap(np.array(times), np.array(seconds[first]))) for name, times in seconds.items()
        },
    }


def weight_bytes(model: Any) -> int:
    """Of all that a step reads: the embedding only where it is the head as well."""
    skipped = 0 if model.ends.head is None else model.ends.tokens.weight.nbytes
    return sum(parameter.nbytes for parameter in model.parameters()) - skipped
