"""What this machine does well: thread count, number type, memory allocator. Measured, not guessed."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from diffulex_edge.errors import ResourceError, UsageError

PROC = Path("/proc")
MEMORY = PROC / "meminfo"  # where Linux says how much of it is free
CPU = torch.device("cpu")
NUMBER_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model(proc: Path = PROC) -> str:
    """The processor's name, as its maker has it where Linux says so."""
    try:
        lines = (proc / "cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def set_threads(threads: int | None) -> int:
    """Sets PyTorch's threads: as told, else one a core or one alone, whichever multiplies matrices faster just now.

    On a busy machine one alone does: two wait for each other. The measurement takes 0.1 s.
    """
    if threads is None:
        threads = max((cores(), 1), key=_rate_with) if cores() > 1 else 1
    most = max(64, 4 * cores())  # far more and the OpenMP runtime brings the process down
    if not 1 <= threads <= most:
        raise UsageError(f"{threads=} must be from 1 to {most}")
    torch.set_num_threads(threads)
    return threads


def _rate_with(threads: int) -> float:
    torch.set_num_threads(threads)
    return gemm_rate(torch.float32, seconds=0.05)


def gemm_rate(dtype: torch.dtype, size: int = 256, seconds: float = 0.02) -> float:
    """Matrix-product rate in FLOP/s, for square matrices of the given size."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return _product_rate(lambda: a @ b, size, seconds)


def int8_rate(size: int = 1024, seconds: float = 0.3) -> float:
    """The same of int8 products summed in int32, in operations a second."""
    a, b = (torch.randint(-127, 128, (size, size), dtype=torch.int8) for _ in range(2))
    return _product_rate(lambda: torch._int_mm(a, b), size, seconds)


def _product_rate(product: Callable[[], object], size: int, seconds: float) -> float:
    product()
    runs, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        product()
        runs += 1
    return 2 * size**3 * runs / (time.perf_counter() - start)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Processor seconds of all threads, and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def bandwidth(size: int = 1 << 28, runs: int = 5) -> float:
    """Bytes a second that are read from memory: the best of adding up `size` bytes, more than a cache holds."""
    x, best = torch.ones(size // 4), float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        x.sum()
        best = min(best, time.perf_counter() - start)
    return size / best


def device(name: str) -> torch.device:
    """cpu, cuda or cuda:N; `auto` is the first GPU where PyTorch sees one."""
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else CPU
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"device {name!r} is not one of auto, cpu, cuda, cuda:N")
    found = torch.device(name)
    if found.type == CPU.type:
        return found
    if (found.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r} is not here: PyTorch sees {torch.cuda.device_count()} GPUs")
    return torch.device("cuda", found.index or 0)


def number_type(name: str, device: torch.device = CPU) -> torch.dtype:
    """fp32 or bf16; `auto` is bf16 where its products are faster: on a GPU that has them, else measured for 50 ms."""
    if name == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if name == "auto":
        return torch.bfloat16 if gemm_rate(torch.bfloat16) > gemm_rate(torch.float32) else torch.float32
    if name not in NUMBER_TYPES:
        raise UsageError(f"number type {name!r} is not one of auto, {', '.join(NUMBER_TYPES)}")
    return NUMBER_TYPES[name]


def need_memory(size_bytes: float, what: str, device: torch.device = CPU) -> None:
    """Raises ResourceError where so much is not free: what the system has promised but not got ends in a kill."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_memory()
    if free is not None and size_bytes > free:
        raise ResourceError(f"{what} needs about {size_bytes / 1e9:,.1f} GB of memory; {free / 1e9:,.1f} GB are free")


def _free_memory() -> int | None:
    try:
        known = dict(line.split(":") for line in MEMORY.read_text().splitlines())
        return int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, LookupError, ValueError):  # not Linux: the allocator has to say it
        return None


def keep_freed_memory() -> None:
    """glibc: keep large freed blocks instead of giving each back to the kernel: a third off the time of large products.

    Does nothing where the C library has no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        mallopt(m_mmap_threshold, 1 << 30)
        mallopt(m_trim_threshold, (1 << 31) - 1)


class PeakMemory:
    """The most resident memory since `reset`, in bytes; since the process began where the kernel has no other mark."""

    def __init__(self, proc: Path = PROC) -> None:
        self._self = proc / "self"
        self.scope = "run" if self.reset() else "process"

    def reset(self) -> bool:
        try:
            (self._self / "clear_refs").write_text("5")  # Linux, proc(5): resets VmHWM
        except OSError:
            return False
        return True

    def read(self) -> int:
        try:
            lines = (self._self / "status").read_text().splitlines()
        except OSError:
            return _lifetime_peak()
        values = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
        return values[0] if values else _lifetime_peak()


def _lifetime_peak() -> int:
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def delegates_openvino() -> Path | None:
    """The C library of an OpenVINO that ExecuTorch's delegate runs with; None: there is none, or a newer one.

    With one of 2026 it ends the process (executorch 1.5.1, openvino 2026.4.1).
    """
    found = find_spec("openvino")
    if found is None or not found.submodule_search_locations or int(version("openvino").partition(".")[0]) >= 2026:
        return None
    folder = Path(found.submodule_search_locations[0])
    return next(iter(sorted(folder.glob("libs/libopenvino_c.so*"))), None)
