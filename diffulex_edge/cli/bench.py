"""`bench`: the measurements of bench/measure.py, or with --train those of bench/flops.py."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffulex_edge.bench.flops import TrainingBenchConfig, benchmark_training
from diffulex_edge.bench.measure import BenchConfig, benchmark
from diffulex_edge.bench.report import bench_table, picture_format, plot, training_table
from diffulex_edge.cli.flags import ModelFlags
from diffulex_edge.cli.parse import console
from diffulex_edge.machine import number_type
from diffulex_edge.text.corpus import read_documents
from diffulex_edge.train.loop import start, train_step
from diffulex_edge.train.recipe import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measures decoding, mode against mode, speed and quality in one table; or with --train a training step."""

    model: ModelFlags = ModelFlags()
    config: BenchConfig = BenchConfig()
    data: tuple[Path, ...] = ()  # documents that the quality is measured on; none: generated sentences
    plot: Path | None = None  # draw quality against speed into this .svg or .png
    train: bool = False  # measure training instead: the share of the best matrix product that a step reaches
    recipe: str | None = TrainConfig.recipe  # what --train trains
    data_dir: Path = TrainConfig.data_dir  # prepared data that --train reads
    training: TrainingBenchConfig = TrainingBenchConfig()

    @property
    def json(self) -> str | None:
        return self.model.json


def run(flags: Flags) -> dict[str, Any]:
    return _training(flags) if flags.train else _decoding(flags)


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


def _training(flags: Flags) -> dict[str, Any]:
    model, precision = flags.model, flags.model.precision or TrainConfig.precision
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            recipe=flags.recipe,
            edge_profile=model.edge_profile,
            model=model.model or TrainConfig.model,
            data_dir=flags.data_dir,
            output_dir=Path(folder),
            threads=model.threads,
            precision=precision,
        )
        made = start(config)
        tokens = made.recipe.batch_size * made.recipe.seq_len * made.recipe.grad_accum
        result = benchmark_training(
            lambda: train_step(made),
            tokens_per_step=tokens,
            dtype=number_type(precision),
            config=flags.training,
        )
    console(flags.json).print(training_table(result))
    return result
