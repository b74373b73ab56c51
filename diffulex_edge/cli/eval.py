"""`eval`: the figures of bench/quality.py for one model and one file of held-out documents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffulex_edge.bench.quality import EvalConfig, evaluate
from diffulex_edge.bench.report import eval_tables
from diffulex_edge.cli.flags import ModelFlags
from diffulex_edge.cli.parse import console
from diffulex_edge.errors import UsageError
from diffulex_edge.text.corpus import read_documents


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Judges a model on documents it has not seen: bits a character, by script and by mode; and the text it writes."""

    data: tuple[Path, ...]  # held-out documents: .jsonl, .jsonl.gz, .txt or .parquet files, or folders of them
    model: ModelFlags = ModelFlags()
    config: EvalConfig = EvalConfig()

    @property
    def json(self) -> str | None:
        return self.model.json


def run(flags: Flags) -> dict[str, Any]:
    documents = list(read_documents(flags.data))
    if not documents:
        raise UsageError(f"there are no documents in {', '.join(map(str, flags.data))}")
    denoiser, tokenizer = flags.model.open()
    config = replace(flags.config, steps=flags.model.steps(flags.config.steps))
    result = evaluate(denoiser, tokenizer, documents, config)
    for table in eval_tables(result):
        console(flags.json).print(table)
    return result
