"""`bench`: decoding (bench/measure.py), or with a flag training, one denoise step, or what few steps change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from diffulex_edge.bench.agreement import agreement
from diffulex_edge.bench.measure import benchmark
from diffulex_edge.bench.report import agreement_table, bench_table, picture_format, plot, steps_table, training_table
from diffulex_edge.bench.steps import benchmark_steps
from diffulex_edge.bench.training import benchmark_recipe
from diffulex_edge.cli.bench_flags import Flags
from diffulex_edge.cli.parse import console
from diffulex_edge.cli.suite import run_suite, run_verdict
from diffulex_edge.runtime.text import text_plan
from diffulex_edge.text.corpus import read_documents
from diffulex_edge.train.recipe import TrainConfig


def run(flags: Flags) -> dict[str, Any]:
    chosen = {_training: flags.train, _step: flags.step, _agreement: flags.agreement, _suite: flags.suite}
    return next((measure for measure, wanted in chosen.items() if wanted), _verdict if flags.verdict else _decoding)(
        flags
    )


def _suite(flags: Flags) -> dict[str, Any]:
    return run_suite(flags.experiments, flags.data_dir, flags.data, flags.json)


def _verdict(flags: Flags) -> dict[str, Any]:
    return run_verdict(flags.experiments, flags.json)


def _decoding(flags: Flags) -> dict[str, Any]:
    if flags.plot is not None:
        picture_format(flags.plot)
    config = replace(flags.config, steps=flags.model.steps(flags.config.steps))
    documents = list(read_documents(flags.data)) if flags.data else None
    result = _shown(flags, bench_table, benchmark(*flags.model.open(), config, documents))
    if flags.plot is not None:
        plot(result, flags.plot)
    return result


def _step(flags: Flags) -> dict[str, Any]:
    return _shown(flags, steps_table, benchmark_steps(flags.model.open()[0], flags.denoising))


def _agreement(flags: Flags) -> dict[str, Any]:
    denoiser, tokenizer = flags.model.open()
    ids = [tokenizer.encode(document.text) for document in read_documents(flags.data)]
    return _shown(flags, agreement_table, agreement(denoiser, ids, text_plan(denoiser, tokenizer, None), flags.few))


def _training(flags: Flags) -> dict[str, Any]:
    names = ("model", "precision", "edge_profile", "threads")
    given: dict[str, Any] = {name: value for name in names if (value := getattr(flags.model, name)) is not None}
    train = TrainConfig(recipe=flags.recipe, data_dir=flags.data_dir, **given)
    return _shown(flags, training_table, benchmark_recipe(train, flags.training))


def _shown(flags: Flags, table: Callable[[dict[str, Any]], Any], result: dict[str, Any]) -> dict[str, Any]:
    console(flags.json).print(table(result))
    return result
