"""What a program costs on the host that made it: time of a step, and memory. For a phone it is an estimate."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import ArtefactError
from diffulex_edge.machine import PeakMemory
from diffulex_edge.runtime.program import core
from diffulex_edge.runtime.pte import PteDenoiser

RUNS = 7
TEXT = {"memory": ("denoise", "commit"), "kv": ("denoise", "commit", "prefill"), "canvas": ("look",)}  # calls these


def estimate(denoiser: PteDenoiser, path: Path) -> dict[str, Any]:
    """Milliseconds of each method (median of seven calls, one thread), and bytes that a process takes on for it."""
    calls = {name: _milliseconds(denoiser, name) for name in denoiser.description["methods"]}
    return {"threads": 1, "milliseconds": calls, "memory_bytes": memory(path)}


def _milliseconds(denoiser: PteDenoiser, method: str) -> float:
    inputs, times = _zeros(denoiser.description["methods"][method]), []
    denoiser.program.call(method, *inputs)
    for _ in range(RUNS):
        start = time.perf_counter()
        denoiser.program.call(method, *inputs)
        times.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(times), 3)


def memory(path: Path) -> int:
    """Bytes by which a process grows, at its peak, when it loads the program and calls what a greedy text does.

    Here each method lays weights out for itself; the runner, and ExecuTorch's builds for phones, do so once for all.
    """
    code = f"from diffulex_edge.export.estimate import tell; tell({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise ArtefactError(f"{path}: could not be run in a process of its own (exit {done.returncode})")
    return int(done.stdout.splitlines()[-1])


def tell(path: str) -> None:
    """What the child process does. ExecuTorch itself and PyTorch are counted with the process, not the program."""
    core()
    peak = PeakMemory()
    before = peak.read()
    denoiser = PteDenoiser(path, threads=1)
    methods = denoiser.description["methods"]
    for name in TEXT[denoiser.description["context"]]:
        if name in methods:
            denoiser.program.call(name, *_zeros(methods[name]))
    print(peak.read() - before)


def _zeros(method: Mapping[str, Any]) -> list[Tensor]:
    return [torch.zeros(port["shape"], dtype=getattr(torch, port["dtype"])) for port in method["inputs"]]
