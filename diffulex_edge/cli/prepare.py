"""`prepare`: the flags are those of PrepareConfig; the work is in text/prepare.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffulex_edge.cli.parse import console
from diffulex_edge.files import read_sealed_json
from diffulex_edge.text.prepare import PrepareConfig, prepare


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Turns text into training data: train.bin, val.bin, meta.json, and a tokenizer where there is none."""

    config: PrepareConfig = PrepareConfig()
    json: str | None = None  # write meta.json without its documents to this path; - for standard output


def run(flags: Flags) -> dict[str, Any]:
    folder, out = prepare(flags.config), console(flags.json)
    meta = read_sealed_json(folder / "meta.json")
    for name, split in meta["splits"].items():
        documents = len(split.pop("documents"))
        out.print(f"{name:5} {documents:,} documents, {split['n_chars']:,} characters, {split['n_tokens']:,} tokens")
    out.print(f"written to {folder}", markup=False)
    return meta
