"""`sedac`: early exits for a model, from states to probes to a promise; the work is in tuning/exit_work.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor

from diffulex_edge.api import SHIPPED, load
from diffulex_edge.bench.progress import bar
from diffulex_edge.bench.sedac_report import sedac_tables
from diffulex_edge.cli.parse import check_place, console
from diffulex_edge.errors import UsageError
from diffulex_edge.machine import set_threads
from diffulex_edge.runtime.cascading import Cascading
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.text.corpus import read_documents
from diffulex_edge.text.script import token_scripts
from diffulex_edge.text.tokenizer import Tokenizer
from diffulex_edge.tuning.exit_work import Advance, ExitTexts, calibrate_in, collect_into, report_of, train_in, watch_in
from diffulex_edge.tuning.exits import Promise


@dataclass(frozen=True, kw_only=True)
class Flags:
    """collect states, train probes, calibrate a promise, report: in this order, on texts that no stage shares.

    watch, later: spot checks on newer texts, which make the exits more careful where more changes than was promised.
    """

    stage: Annotated[Literal["collect", "train", "calibrate", "report", "watch"], tyro.conf.Positional]
    folder: Annotated[Path, tyro.conf.Positional]  # what the stages leave for each other, and for sample --sedac
    ckpt: str = SHIPPED  # a run or checkpoint folder, the shipped model's name, or OWNER/NAME of a pulled one
    data: tuple[Path, ...] = ()  # documents: to collect on, to calibrate on; to measure the curve of a report on
    texts: ExitTexts = ExitTexts()
    steps: int | None = None  # reverse steps a block; None: the model's own
    promise: Promise = Promise()
    cascade: Cascading = Cascading()
    threads: int | None = 1
    json: str | None = None  # write the result as JSON to this path; - for standard output


def _kinds(tokenizer: Tokenizer) -> Tensor:
    return torch.tensor(token_scripts(tokenizer))


Stage = Callable[[Flags, Any, list[list[int]], Plan, Advance, Tokenizer], dict[str, Any]]
STAGES: dict[str, Stage] = {
    "collect": lambda f, model, prompts, plan, on, words: collect_into(
        f.folder, model, prompts, plan, on, _kinds(words)
    ),
    "train": lambda f, model, prompts, plan, on, words: train_in(f.folder, model, _kinds(words)),
    "calibrate": lambda f, model, prompts, plan, on, words: calibrate_in(
        f.folder, model, prompts, plan, f.promise, f.cascade, on
    ),
    "watch": lambda f, model, prompts, plan, on, words: watch_in(f.folder, model, prompts, plan, on),
    "report": lambda f, model, prompts, plan, on, words: report_of(f.folder, model, prompts, plan, on),
}


def run(flags: Flags) -> dict[str, Any]:
    check_place(flags.json)
    set_threads(flags.threads)
    if flags.stage in ("collect", "calibrate", "watch") and not flags.data:
        raise UsageError(f"sedac {flags.stage} needs --data: documents that no other stage has seen")
    denoiser, tokenizer = load(flags.ckpt)
    prompts = flags.texts.windows(read_documents(flags.data), tokenizer) if flags.data else []
    plan = plan_for(denoiser.spec, steps=flags.steps, max_new_tokens=flags.texts.exit_tokens)
    with bar(flags.stage, len(prompts)) as advance:
        result = STAGES[flags.stage](flags, denoiser, prompts, plan, advance, tokenizer)
    for table in sedac_tables(result):
        console(flags.json).print(table)
    return result
