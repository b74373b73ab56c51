"""`bench`: decoding (bench/measure.py), or with a flag training, one denoise step, or what few steps change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffulex_edge.bench.agreement import AgreementConfig, agreement
from diffulex_edge.bench.flops import TrainingBenchConfig
from diffulex_edge.bench.measure import BenchConfig, benchmark
from diffulex_edge.bench.report import agreement_table, bench_table, picture_format, plot, steps_table, training_table
from diffulex_edge.bench.steps import StepBenchConfig, benchmark_steps
from diffulex_edge.bench.training import benchmark_recipe
from diffulex_edge.cli.flags import ModelFlags
from diffulex_edge.cli.parse import console
from diffulex_edge.runtime.text import text_plan
from diffulex_edge.text.corpus import read_documents
from diffulex_edge.train.recipe import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measures decoding, mode against mode, speed and quality in one table; or a training step, or a denoise step."""

    model: ModelFlags = ModelFlags()
    config: BenchConfig = BenchConfig()
    data: tuple[Path, ...] = ()  # documents that the quality is measured on; none: generated sentences
    plot: Path | None = None  # draw quality against speed into this .svg or .png
    train: bool = False  # measure training instead: the share of the best matrix product that a step reaches
    recipe: str | None = TrainConfig.recipe  # what --train trains
    data_dir: Path = TrainConfig.data_dir  # prepared data that --train reads
    training: TrainingBenchConfig = TrainingBenchConfig()
    step: bool = False  # measure one denoise step instead, over the floor of its arithmetic and its weights
    denoising: StepBenchConfig = StepBenchConfig()
    agreement: bool = False  # compare what thresholds write with what one token a step writes, on --data
    few: AgreementConfig = AgreementConfig()

    @property
    def json(self) -> str | None:
        return self.model.json


def run(flags: Flags) -> dict[str, Any]:
    chosen = ((flags.train, _training), (flags.step, _step), (flags.agreement, _agreement), (True, _decoding))
    return next(measure for wanted, measure in chosen if wanted)(flags)


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
