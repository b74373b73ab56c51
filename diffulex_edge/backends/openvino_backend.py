"""OpenVINO by itself, on laptops. No backend of ExecuTorch: export/openvino_ir.py writes OpenVINO's own files."""

from __future__ import annotations

from diffulex_edge.backends.base import Availability, installed

# What OpenVINO makes of weights: schemes of quant/, and the package that each needs beside it.
ROUNDINGS: dict[str | None, str | None] = {None: None, "bf16": None, "weight_only_int8": "nncf"}


def native(quantization: str | None = None) -> Availability:
    """Whether OpenVINO's own files can be written here."""
    needs = ["openvino", *filter(None, [ROUNDINGS.get(quantization)])]
    found = (installed(package, "openvino_ir", "openvino") for package in needs)
    return next((each for each in found if not each), Availability())
