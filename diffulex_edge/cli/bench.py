"""`bench`: the measurements of bench/measure.py; of bench/training.py with --train, of bench/steps.py with --step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffulex_edge.bench.flops import TrainingBenchConfig
from diffulex_edge.bench.measure import BenchConfig, benchmark
from diffulex_edge.bench.report import bench_table, picture_format, plot, steps_table, training_table
from diffulex_edge.bench.steps import StepBenchConfig, benchmark_steps
from diffulex_edge.bench.training import benchmark_recipe
from diffulex_edge.cli.flags import ModelFlags
from diffulex_edge.cli.parse import console
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

    @property
    def json(self) -> str | None:
        return self.model.json


def run(flags: Flags) -> dict[str, Any]:
    return _training(flags) if flags.train else _step(flags) if flags.step else _decoding(flags)


def _decoding(flags: Flags) -> dict[str, Any]:
    if flags.plot is not None:
        picture_format(flags.plot)
    documents = list(read_documents(flags.data)) if flags.data else None
    denoiser, tokenizer = flags.model.open()
    config = replace(flags.config, steps=flags.model.steps(flags.config.steps))
    result = benchmark(denoiser, tokenizer, config, documents)
    console(flags.json).print(bench_table(result))
    if flags.plot is not None:
        plot(result, flags.plot)
    return result


def _step(flags: Flags) -> dict[str, Any]:
    denoiser, _ = flags.model.open()
    result = benchmark_steps(denoiser, flags.denoising)
    console(flags.json).print(steps_table(result))
    return result


def _training(flags: Flags) -> dict[str, Any]:
    model = flags.model
    train = TrainConfig(
        recipe=flags.recipe,
        edge_profile=model.edge_profile,
        model=model.model or TrainConfig.model,
        data_dir=flags.data_dir,
        threads=model.threads,
        precision=model.precision or TrainConfig.precision,
    )
    result = benchmark_recipe(train, flags.training)
    console(flags.json).print(training_table(result))
    return result
