"""A training step of a recipe, measured: what `bench --train` does."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffulex_edge.bench.flops import TrainingBenchConfig, benchmark_training
from diffulex_edge.machine import number_type
from diffulex_edge.train.loop import start, train_step
from diffulex_edge.train.recipe import TrainConfig


def benchmark_recipe(train: TrainConfig, config: TrainingBenchConfig = TrainingBenchConfig()) -> dict[str, Any]:
    """Makes the run that the flags name, in a folder that is thrown away, and times its steps."""
    with tempfile.TemporaryDirectory() as folder:
        made = start(replace(train, output_dir=Path(folder)))
        tokens = made.recipe.batch_size * made.recipe.seq_len * made.recipe.grad_accum
        return benchmark_training(
            lambda: train_step(made),
            tokens_per_step=tokens,
            dtype=number_type(train.precision, made.device),
            config=config,
        )
