"""What this machine and this installation can do. It reports; it does not judge."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from diffulex_edge import __version__
from diffulex_edge.api import SHIPPED, load
from diffulex_edge.backends import BACKENDS
from diffulex_edge.backends.base import here
from diffulex_edge.bench.energy import energy_source
from diffulex_edge.errors import DiffulexEdgeError
from diffulex_edge.machine import cpu_model, gemm_rate
from diffulex_edge.sedac.native import core

CPU_FLAGS = {
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "AMX": ("amx_tile",),
    "VNNI": ("avx512_vnni", "avx_vnni", "asimddp"),
}
OPTIONAL = ("pyarrow", "datasets", "lm_eval", "sacrebleu", "matplotlib", "executorch", "torchao")


def findings() -> dict[str, str]:
    """One line for each thing worth knowing when something is slow or does not work."""
    return {name: check() for name, check in CHECKS.items()}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    has = [name for name, flags in CPU_FLAGS.items() if words.intersection(flags)]
    return f"{cpu_model()}; in hardware: {', '.join(has) or 'none of ' + ', '.join(CPU_FLAGS)}"


def _products() -> str:
    rates = {name: gemm_rate(dtype) / 1e9 for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    return ", ".join(f"{name} {rate:.1f} GFLOP/s" for name, rate in rates.items()) + " (256 x 256 matrix products)"


def _load() -> str:
    return ", ".join(f"{load:.2f}" for load in os.getloadavg()) + f" on {os.cpu_count()} cores"


def _packages() -> str:
    def one(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"{name} -"

    return ", ".join(map(one, OPTIONAL))


def _backends() -> str:
    return "; ".join(f"{backend.name}: {here(backend)}" for backend in BACKENDS.values())


def _sedac() -> str:
    if core() is None:
        return "the controller in NumPy; the Rust core is not installed (`make rust` builds it, with cargo)"
    return f"the controller in Rust, sedac_core {version('sedac-core')}"


def _shipped() -> str:
    try:
        model, words = load(SHIPPED)
    except DiffulexEdgeError as error:
        return str(error)
    modes = ", ".join(model.spec.trained_modes)
    return f"{SHIPPED}: verified, {model.spec.n_layers} layers, {words.vocab_size} pieces; trained for {modes}"


CHECKS: dict[str, Callable[[], str]] = {
    "diffulex-edge": lambda: f"{__version__}, Python {platform.python_version()}, {platform.system()}",
    "torch": lambda: f"{torch.__version__}, accelerator {'cuda' if torch.cuda.is_available() else 'none'}",
    "cpu": _cpu,
    "threads": lambda: f"{torch.get_num_threads()} by default",
    "products": _products,
    "load": _load,
    "energy": lambda: energy_source().name,
    "disk": lambda: f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free here",
    "packages": _packages,
    "backends": _backends,
    "sedac": _sedac,
    "model": _shipped,
}
