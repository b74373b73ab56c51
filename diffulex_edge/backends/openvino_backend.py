"""OpenVINO, twice: inside ExecuTorch, which takes an older one; and by itself, for export/openvino_ir.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffulex_edge.backends.base import Availability, installed
from diffulex_edge.machine import delegates_openvino

EXTRA = "export-openvino"


@dataclass(frozen=True)
class OpenvinoBackend:
    name: str = "openvino"
    about: str = "CPU: Linux; in bf16 where the processor has that"
    tested: str = "made and run in an environment of its own: in fp32 equal to the eager model to 1e-4"
    vectors: bool = True
    integers: bool = False
    allowed: frozenset[str] = frozenset()

    def available(self) -> Availability:
        if delegates_openvino() is None:
            how = f"pip install 'diffulex-edge[{EXTRA}]'"
            return Availability(reason=f"openvino in a .pte needs one below 2026, in its own environment: {how}")
        return installed("executorch", self.name, EXTRA) and installed("nncf", self.name, EXTRA)

    def runs(self) -> Availability:
        return self.available()

    def quantizer(self) -> None:
        return None

    def partitioners(self) -> list[Any]:
        self.available().need()
        from executorch.backends.openvino.partitioner import OpenvinoPartitioner
        from executorch.exir.backend.compile_spec_schema import CompileSpec

        return [OpenvinoPartitioner([CompileSpec("device", b"CPU")])]


# What OpenVINO makes of weights: schemes of quant/, and the package that each needs beside it.
ROUNDINGS: dict[str | None, str | None] = {None: None, "bf16": None, "weight_only_int8": "nncf"}


def native(quantization: str | None = None) -> Availability:
    """Whether OpenVINO's own files can be written here."""
    needs = ["openvino", *filter(None, [ROUNDINGS.get(quantization)])]
    found = (installed(package, "openvino_ir", "openvino") for package in needs)
    return next((each for each in found if not each), Availability())
