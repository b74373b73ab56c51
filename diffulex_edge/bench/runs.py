"""Runs of decoding, timed in turn: A B A B."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diffulex_edge.bench.energy import EnergySource
from diffulex_edge.bench.generation import kept
from diffulex_edge.bench.progress import bar
from diffulex_edge.bench.variants import Skipped, Variant
from diffulex_edge.machine import PeakMemory
from diffulex_edge.runtime.decode import decode, finish


@dataclass
class Runs:
    """What was seen of a variant, run by run; run i of each had the same prompt and stood beside the others."""

    latency: list[float] = field(default_factory=list)  # seconds
    tokens: list[list[int]] = field(default_factory=list)  # kept
    forwards: list[int] = field(default_factory=list)  # calls that looked
    commits: list[int] = field(default_factory=list)  # calls that remembered
    peak: list[int] = field(default_factory=list)  # bytes
    joules: list[float | None] = field(default_factory=list)

    @property
    def kept(self) -> NDArray[np.float64]:
        return np.array([len(tokens) for tokens in self.tokens], np.float64)

    @property
    def rate(self) -> NDArray[np.float64]:
        """Kept tokens a second, (n,)."""
        return self.kept / np.array(self.latency)


def warm_up(
    variants: Sequence[Variant], prompt: list[int], n: int, slowest: float
) -> tuple[list[Variant], list[Skipped]]:
    """Runs each variant n times; gives those that are fast enough, and those that are not."""
    fast, slow = [], []
    with bar("warming up", n * len(variants)) as advance:
        for variant in variants:
            if all(_in_time(variant, prompt, slowest) for _ in range(n)):
                fast.append(variant)
            else:
                slow.append(Skipped(variant.name, f"one run takes more than {slowest} s"))
            advance(n)
    return fast, slow


def interleaved(
    variants: Sequence[Variant], prompts: Sequence[list[int]], rounds: int, energy: EnergySource
) -> tuple[dict[str, Runs], str]:
    """Every variant on every prompt, in turn, `rounds` times; and whether peak memory is of a run or of the process."""
    measured = {variant.name: Runs() for variant in variants}
    memory = PeakMemory()
    with bar("decoding", rounds * len(prompts) * len(variants)) as advance:
        for _ in range(rounds):
            for prompt in prompts:
                for variant in variants:
                    _run_once(variant, prompt, measured[variant.name], memory, energy)
                    advance(1)
    return measured, memory.scope


def _in_time(variant: Variant, prompt: list[int], slowest: float) -> bool:
    start = time.perf_counter()
    return all(time.perf_counter() - start < slowest for _ in decode(variant.denoiser, [prompt], variant.plan))


def _run_once(variant: Variant, prompt: list[int], runs: Runs, memory: PeakMemory, energy: EnergySource) -> None:
    memory.reset()
    energy.lap()
    start = time.perf_counter()
    last = finish(decode(variant.denoiser, [prompt], variant.plan))
    runs.latency.append(time.perf_counter() - start)
    runs.joules.append(energy.lap())
    runs.peak.append(memory.read())
    runs.tokens.append(kept(last.tokens[0], variant.plan))
    runs.forwards.append(last.forwards)
    runs.commits.append(last.commits)
