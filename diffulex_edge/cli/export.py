"""`export`: a model becomes a program that ExecuTorch or OpenVINO runs; the work is in export/."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.table import Table

from diffulex_edge.api import SHIPPED, load, source_of
from diffulex_edge.cli.parse import check_place, console
from diffulex_edge.export import ExportConfig, ExportResult
from diffulex_edge.export.bundle import as_json, export_bundle
from diffulex_edge.export.mlpackage import MLPACKAGE
from diffulex_edge.export.openvino_ir import IR
from diffulex_edge.text.corpus import read_documents

_NAMES = {IR: "openvino", MLPACKAGE: f"model.{MLPACKAGE}"}  # of what is written by default; else model.pte
_TRIED = {MLPACKAGE: "peek"}  # an app runs it; else sample --pte


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Writes a program, what is in it (OUTPUT.json), and its tokenizer beside them; takes a minute or more."""

    ckpt: str = SHIPPED  # a run or checkpoint folder, the shipped model's name, or OWNER/NAME of a pulled one
    output: Path | None = None  # None: exported/model.pte; exported/openvino, a folder; exported/model.mlpackage
    shape: ExportConfig = ExportConfig()
    calibration_data: tuple[Path, ...] = ()  # documents that qnn's quantiser chooses its ranges by
    calibration_documents: int = 16  # of these, at most
    tokenizer: Path | None = None  # a tokenizer to use instead of the one beside the weights; of the same vocabulary
    json: str | None = None  # write the result as JSON to this path; - for standard output


def run(flags: Flags) -> dict[str, Any]:
    check_place(flags.json)
    out = console(flags.json)
    with out.status("tracing and lowering"):
        denoiser, _ = load(flags.ckpt, tokenizer=flags.tokenizer)
        source = flags.tokenizer or source_of(flags.ckpt)
        output = flags.output or Path("exported") / _NAMES.get(flags.shape.backend, "model.pte")
        texts = [each.text for each in islice(read_documents(flags.calibration_data), flags.calibration_documents)]
        result = export_bundle(denoiser, source, output, flags.shape, texts)
    out.print(_table(result))
    tried = f"diffulex-edge {_TRIED.get(result.backend, 'sample --pte')} {result.path}"
    out.print(f"{result.path}: {result.size_bytes / 1e6:.1f} MB. Try it: {tried}")
    return as_json(result)


def _table(result: ExportResult) -> Table:
    table = Table("method", f"operators outside of {result.backend}", box=None)
    for method in result.methods:
        counts = result.outside[method]
        table.add_row(method, ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    return table
