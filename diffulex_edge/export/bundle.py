"""A program in a folder together with the tokenizer that it speaks, so that the folder is all one needs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffulex_edge.errors import UsageError
from diffulex_edge.export.config import ExportConfig, ExportResult
from diffulex_edge.export.exporter import export
from diffulex_edge.export.openvino_ir import IR
from diffulex_edge.files import sha256_file
from diffulex_edge.runtime.text import ends_of, wordless
from diffulex_edge.text.tokenizer import load_tokenizer, tokenizer_files


def export_bundle(
    model: Any, tokenizer: Path, output: Path, config: ExportConfig, texts: Sequence[str] = ()
) -> ExportResult:
    """Writes `output`, its description, and beside them the tokenizer.

    tokenizer: a file, or a folder that holds one. texts: what a backend with a quantiser of its own (qnn) chooses its
    ranges by. Raises UsageError where another tokenizer lies beside `output`.
    """
    sources = tokenizer_files(tokenizer)
    alone = config.backend == IR  # in a folder of its own, tokenizer and all
    pairs = [] if alone else [(source, output.with_name(source.name)) for source in sources]
    for source, target in pairs:
        if target.exists() and sha256_file(target) != sha256_file(source):
            raise UsageError(f"{target}: another tokenizer lies beside {output.name}; choose another folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    words = load_tokenizer(sources[0])
    about = {
        "tokenizer": {"file": sources[0].name, "fingerprint": words.fingerprint},
        "eos_ids": list(ends_of(model.spec, words)),
    }
    seen = [words.encode(text) for text in texts]
    beside = sources if alone else ()
    result = export(model, output, config, about, wordless(model.spec, words), calibration=seen, beside=beside)
    for source, target in pairs:
        if not target.exists():
            shutil.copyfile(source, target)
    return result


def as_json(result: ExportResult) -> dict[str, Any]:
    """What a verb tells; the description is in a file of its own."""
    return {name: value for name, value in asdict(result).items() if name != "description"}
