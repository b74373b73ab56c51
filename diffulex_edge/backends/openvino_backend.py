"""OpenVINO, twice: inside ExecuTorch, as a partitioner for a .pte; and by itself, whose files openvino_ir.py writes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from diffulex_edge.backends.base import Availability, installed

# What OpenVINO alone can make of weights: schemes of quant/, by what else they need.
ROUNDINGS: dict[str | None, str | None] = {None: None, "bf16": None, "weight_only_int8": "nncf"}
LATEST = 2025  # from 2026 on, programs of ExecuTorch 1.5 end the process when they run


@dataclass(frozen=True)
class OpenvinoBackend:
    name: str = "openvino"
    about: str = "Intel's CPU, GPU and NPU, and AMD's CPUs: Linux, Windows"
    tested: str = "made and run on a CPU: equal to the eager model to 1e-3"
    friendly: bool = False  # it takes norms and attention as they are
    contexts: tuple[str, ...] = ("memory", "kv", "canvas")
    integers: bool = False
    allowed: frozenset[str] = frozenset()

    def available(self) -> Availability:
        if sys.platform == "darwin":
            return Availability(reason="openvino: ExecuTorch has no OpenVINO for macOS")
        found = [installed(package, "openvino", "export-openvino") for package in ("executorch", "openvino", "nncf")]
        return next((each for each in found if not each), _old_enough())

    def runs(self) -> Availability:
        return self.available()

    def quantizer(self) -> None:
        return None

    def partitioners(self) -> list[Any]:
        self.available().need()
        from executorch.backends.openvino.partitioner import OpenvinoPartitioner
        from executorch.exir.backend.backend_details import CompileSpec

        return [OpenvinoPartitioner([CompileSpec("device", b"CPU")])]


def _old_enough() -> Availability:
    found = version("openvino")
    if int(found.split(".")[0]) <= LATEST:
        return Availability()
    return Availability(
        reason=f"openvino {found}: ExecuTorch 1.5 needs one of {LATEST}: pip install 'diffulex-edge[export-openvino]'"
    )


def native(quantization: str | None = None) -> Availability:
    """Whether OpenVINO's own files can be written here."""
    needs = ["openvino", *filter(None, [ROUNDINGS.get(quantization)])]
    return next((a for a in (installed(n, "openvino_ir", "openvino") for n in needs) if not a), Availability())
