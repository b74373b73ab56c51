"""`pack`: all that an app needs of a model in one folder; the work is in export/pack.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffulex_edge.api import SHIPPED, load, source_of
from diffulex_edge.cli.parse import check_place, console
from diffulex_edge.cli.peek import table
from diffulex_edge.export import ExportConfig
from diffulex_edge.export.pack import PackConfig, check, make_pack, peek

PAPERS = ("README.md", "LICENSE", "CREDITS.pratham.tsv")  # of the model, where it has them


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Writes a device pack, or with --check decodes the golden texts of one that is there."""

    ckpt: str = SHIPPED  # a run or checkpoint folder, the shipped model's name, or OWNER/NAME of a pulled one
    output: Path = Path("exported/pack")
    pack: PackConfig = PackConfig()
    shape: ExportConfig = ExportConfig()
    check: bool = False  # run the pack at --output on this machine, and compare
    json: str | None = None  # write what is in the pack as JSON to this path; - for standard output


def run(flags: Flags) -> dict[str, Any]:
    check_place(flags.json)
    out = console(flags.json)
    if flags.check:
        with out.status("decoding the golden texts"):
            texts = check(flags.output)
        out.print(f"{flags.output}: intact, and its {texts} golden texts come out as they should")
        return {"pack": str(flags.output), "texts": texts}
    with out.status("tracing, lowering, decoding the golden texts"):
        denoiser, _ = load(flags.ckpt)
        source = source_of(flags.ckpt)
        papers = [source / name for name in PAPERS if (source / name).exists()]
        make_pack(denoiser, source, flags.output, flags.pack, flags.shape, papers)
    found = peek(flags.output)
    out.print(table(found))
    return found
