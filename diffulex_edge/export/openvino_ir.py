"""A denoiser as OpenVINO's own files, for laptops: the methods of a .pte, run without ExecuTorch.

    FOLDER/  program.json  denoise.xml  denoise.bin  commit.xml ...   manifest.json, with the sha256 of every file

OpenVINO has no methods that share a memory, so what a text has left behind goes in and out of each call. Weights lie in
each method's file; one that is never called is never read.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from diffulex_edge.backends.openvino_backend import ROUNDINGS, native
from diffulex_edge.errors import UsageError
from diffulex_edge.export.config import ExportConfig, ExportResult
from diffulex_edge.export.graph import Graph, Method
from diffulex_edge.export.openvino_dialect import OPENVINO
from diffulex_edge.export.stateless import memory_ports, trace_stateless
from diffulex_edge.files import sha256_file
from diffulex_edge.model import checkpoint
from diffulex_edge.runtime.openvino_program import PROGRAM

IR = "openvino_ir"  # the backend's name


def check_scheme(quantization: str | None) -> None:
    """Raises UsageError for a scheme that is not OpenVINO's, BackendUnavailable where a package is missing."""
    if quantization not in ROUNDINGS:
        able = ", ".join(str(name) for name in ROUNDINGS if name)
        raise UsageError(f"openvino_ir does not compute {quantization}; it takes {able}")
    native(quantization).need()


def export_ir(
    graph: Graph,
    methods: Sequence[Method],
    folder: Path,
    config: ExportConfig,
    description: Mapping[str, Any],
    beside: Sequence[Path] = (),
) -> ExportResult:
    """Writes the folder whole or not at all."""
    whole = {
        **description,
        "memory": [asdict(port) for port in memory_ports(graph)],
        "keeps": [m.name for m in methods if m.keeps],
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="openvino-", dir=folder.parent) as work:
        for method in methods:
            _write(trace_stateless(graph, method), Path(work) / f"{method.name}.xml", config.quantization)
        files: dict[str, Callable[[Path], None]] = {
            path.name: checkpoint.copy_of(path) for path in (*sorted(Path(work).iterdir()), *beside)
        }
        checkpoint.write(folder, {**files, PROGRAM: checkpoint.document(whole)})
    return ExportResult(
        path=folder,
        size_bytes=sum(path.stat().st_size for path in folder.iterdir()),
        sha256=sha256_file(folder / "manifest.json"),
        backend=config.backend,
        quantization=config.quantization,
        methods=tuple(method.name for method in methods),
        outside={method.name: {} for method in methods},
        description=whole,
    )


def _write(program: Any, path: Path, quantization: str | None) -> None:
    import openvino

    model = openvino.convert_model(program.run_decompositions(dict(OPENVINO.operators)))
    if quantization == "weight_only_int8":
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # it draws tables
            import nncf

            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(model, path, compress_to_fp16=False)
