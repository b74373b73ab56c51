"""`peek`: what is in a device pack or a Core ML package, after every byte of it was verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from diffulex_edge.cli.parse import console
from diffulex_edge.export.mlpackage import MLPACKAGE, verify_package
from diffulex_edge.export.pack import peek


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Verifies a pack, or a .mlpackage, and tells what it holds; a damaged one makes the exit code 3."""

    pack: tyro.conf.Positional[Path]  # the folder
    json: str | None = None  # write it as JSON to this path; - for standard output


def run(flags: Flags) -> dict[str, Any]:
    if flags.pack.suffix == f".{MLPACKAGE}":
        found = verify_package(flags.pack)
        console(flags.json).print(functions(found))
        return found
    found = peek(flags.pack)
    console(flags.json).print(table(found))
    return found


def functions(found: dict[str, Any]) -> Table:
    """Of a Core ML package, with what each takes and gives."""
    rows = Table("function", "takes", "gives", box=None)
    for name, method in found["methods"].items():
        sides = (
            ", ".join(f"{port['name']} {port['shape']}" for port in method[side]) for side in ("inputs", "outputs")
        )
        rows.add_row(name, *sides)
    return rows


def table(found: dict[str, Any]) -> Table:
    contract, estimate, rows = found["contract"], found["estimate"], Table(box=None, show_header=False)
    steps = max(map(len, contract["counts"]))
    facts = {
        "for": f"{contract['target']}, {contract['backend']}, {contract['quantization'] or 'fp32'}",
        "context": f"{contract['context']}, blocks of {contract['block_size']}, {steps} steps each",
        "longest text": f"{contract['max_length']} tokens" if contract["max_length"] else "no limit",
        "vocabulary": f"{contract['vocab_size']}, {contract['tokenizer']['kind']}",
        "files": ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in found["files"].items()),
        "here, one thread": ", ".join(f"{name} {ms:.1f} ms" for name, ms in estimate["milliseconds"].items()),
        "memory": f"{estimate['memory_bytes'] / 1e6:.0f} MB beside the program that loads it",
        "made with": ", ".join(f"{name} {version}" for name, version in contract["versions"].items()),
    }
    for name, value in facts.items():
        rows.add_row(name, value)
    return rows
