"""How much of the machine does training use? FLOPs of a step x steps a second, over matrix products of the same run.

FLOPs are those of PyTorch's FLOP counter: matrix products, attention and convolutions, forward and backward.
Element-wise work counts for nothing, so the share is a lower bound.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from diffulex_edge.bench.environment import environment
from diffulex_edge.bench.progress import bar
from diffulex_edge.errors import UsageError
from diffulex_edge.machine import NUMBER_TYPES, gemm_rate

Step = Callable[[], object]
Shape = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class TrainingBenchConfig:
    rounds: int = 10  # each times a few steps, then every matrix product
    steps_per_round: int = 1
    warmup_steps: int = 2  # not timed
    sizes: tuple[int, ...] = (256, 512, 1024, 2048)  # of the square matrices; the best rate counts
    slowest_product: float = 1.0  # seconds; sizes whose product would take longer are left out

    def __post_init__(self) -> None:
        for name in ("rounds", "steps_per_round"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.sizes or min(self.sizes) < 1:
            raise UsageError(f"sizes={self.sizes} needs at least one size, none below 1")


def benchmark_training(
    step: Step, *, tokens_per_step: int, dtype: torch.dtype, config: TrainingBenchConfig = TrainingBenchConfig()
) -> dict[str, Any]:
    """Times `step`, one whole update that computes in `dtype`, against the best matrix products of each number type.

    `utilisation` has one entry a number type and `training`, the one of dtype: FLOP/s of the median step over the
    best rate.
    """
    flops = count_flops(step)
    for _ in range(config.warmup_steps):
        step()
    sizes = {name: _affordable(kind, config) for name, kind in NUMBER_TYPES.items()}
    best = dict.fromkeys(NUMBER_TYPES, 0.0)
    seconds: list[float] = []
    with bar("training steps and matrix products", config.rounds) as advance:
        for _ in range(config.rounds):
            seconds += [_timed(step) for _ in range(config.steps_per_round)]
            for name, kind in NUMBER_TYPES.items():
                best[name] = max(best[name], *(gemm_rate(kind, size) for size in sizes[name]))
            advance(1)
    return _summary(flops, seconds, best, sizes, tokens_per_step, dtype)


def count_flops(step: Step) -> int:
    """Of one call, which is made."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        step()
    return counter.get_total_flops()


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


_CPU_ATTENTION = {  # PyTorch's own table knows the kernels of accelerators only
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def _affordable(kind: torch.dtype, config: TrainingBenchConfig) -> list[int]:
    """The sizes whose product ends in time, judged by the rate of the smallest; the smallest always."""
    first, *rest = sorted(config.sizes)
    rate = gemm_rate(kind, first)
    return [first, *(size for size in rest if 2 * size**3 / rate <= config.slowest_product)]


def _timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _summary(
    flops: int,
    seconds: list[float],
    best: dict[str, float],
    sizes: dict[str, list[int]],
    tokens_per_step: int,
    dtype: torch.dtype,
) -> dict[str, Any]:
    median = statistics.median(seconds)
    trained_in = next(name for name, kind in NUMBER_TYPES.items() if kind == dtype)
    share = {name: flops / median / rate for name, rate in best.items()}
    return {
        "flops_per_step": flops,
        "steps_per_s": 1 / median,
        "tokens_per_s": tokens_per_step / median,
        "step_ms": {"p50": 1e3 * median, "min": 1e3 * min(seconds), "max": 1e3 * max(seconds), "n": len(seconds)},
        "gflops_per_s": flops / median / 1e9,
        "gemm_gflops_per_s": {name: rate / 1e9 for name, rate in best.items()},
        "gemm_sizes": sizes,
        "training_number_type": trained_in,
        "utilisation": {**share, "training": share[trained_in]},
        "environment": environment(dtype),
    }
