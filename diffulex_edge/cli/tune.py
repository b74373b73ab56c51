"""`tune`: which engine, number of threads and block write a model's text fastest here; the work is in tuning/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from diffulex_edge.api import SHIPPED, load, source_of, tuned_folder
from diffulex_edge.bench.report import number
from diffulex_edge.bench.texts import Texts
from diffulex_edge.cli.parse import console
from diffulex_edge.runtime.plan import plan_for
from diffulex_edge.text.corpus import read_documents
from diffulex_edge.text.demo import demo_documents
from diffulex_edge.tuning.engines import Workshop
from diffulex_edge.tuning.tune import TuneConfig, tune

DEMO_DOCUMENTS = 24


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measures the engines that are installed and keeps the best for this machine: sample, chat and bench obey it."""

    ckpt: Annotated[str, tyro.conf.Positional] = SHIPPED  # a run or checkpoint folder, the shipped model, OWNER/NAME
    data: tuple[Path, ...] = ()  # held-out documents that quality is measured on; none: generated sentences
    tuning: TuneConfig = TuneConfig()
    tokenizer: Path | None = None  # a tokenizer to use instead of the one beside the weights; of the same vocabulary
    json: str | None = None  # write the result as JSON to this path; - for standard output


def run(flags: Flags) -> dict[str, Any]:
    out = console(flags.json)
    model, tokenizer = load(flags.ckpt, tokenizer=flags.tokenizer)
    documents = list(read_documents(flags.data)) if flags.data else list(demo_documents(DEMO_DOCUMENTS, 0))
    source = source_of(flags.ckpt)
    workshop = Workshop(
        model=model,
        source=source,
        tokenizer=flags.tokenizer or source,
        folder=tuned_folder(flags.ckpt),
        context=plan_for(model.spec).context,
        max_length=flags.tuning.max_length,
    )
    result = tune(workshop, tokenizer, Texts.read(documents, tokenizer), flags.tuning)
    out.print(_table(result["rows"]))
    for name, reason in result["missing"].items():
        out.print(f"left out: {name}: {reason}", markup=False)
    out.print(f"{result['chosen']}: sample, chat and bench obey it ({workshop.folder}); --untuned leaves it out")
    return result


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("engine", "threads", "block", "ready", "tok/s", "times", "bits lost", "agrees", box=None)
    table.columns[0].min_width = 12
    table.columns[5].no_wrap = table.columns[6].no_wrap = True
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before["base"] != row["base"]:
            table.add_row()
        over = row["times_base"]
        times = "base" if row["name"] == row["base"] else f"{over['ratio']:.2f} ({over['low']:.2f}-{over['high']:.2f})"
        lost = f"{row['loss']:+.2%}" + ("" if row["passes"] else f" > {row['budget']:.0%}")
        shape = (str(row["threads"]), str(row["block_size"]), f"{row['ready_s']:.1f} s", number(row["tokens_per_s"]))
        table.add_row(row["engine"], *shape, times, lost, number(row["guess_agreement"]))
    return table
