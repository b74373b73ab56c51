"""What `bench` measures instead of decoding: each probe by a flag of its own, beside the settings that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffulex_edge.bench.agreement import AgreementConfig, agreement
from diffulex_edge.bench.flops import TrainingBenchConfig
from diffulex_edge.bench.recall import RecallConfig, recall
from diffulex_edge.bench.report import (
    agreement_table,
    recall_table,
    runtimes_table,
    steps_table,
    training_table,
)
from diffulex_edge.bench.runtimes import RuntimeBenchConfig, benchmark_runtimes
from diffulex_edge.bench.sedac import SedacBenchConfig, benchmark_sedac
from diffulex_edge.bench.sedac_report import sedac_bench_table
from diffulex_edge.bench.steps import StepBenchConfig, benchmark_steps
from diffulex_edge.bench.training import benchmark_recipe
from diffulex_edge.cli.flags import ModelFlags
from diffulex_edge.machine import set_threads
from diffulex_edge.runtime.text import text_plan
from diffulex_edge.text.corpus import read_documents
from diffulex_edge.train.recipe import TrainConfig

Table = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, kw_only=True)
class Probes:
    """What to measure instead of decoding."""

    train: bool = False  # measure training instead: the share of the best matrix product that a step reaches
    recipe: str | None = TrainConfig.recipe  # what --train trains
    data_dir: Path = TrainConfig.data_dir  # prepared data that --train and --suite read
    training: TrainingBenchConfig = TrainingBenchConfig()
    step: bool = False  # measure one denoise step instead, over the floor of its arithmetic and its weights
    denoising: StepBenchConfig = StepBenchConfig()
    runtimes: bool = False  # measure a step and a text in every engine instead: eager, quantised, programs
    engines: RuntimeBenchConfig = RuntimeBenchConfig()
    sedac: bool = False  # measure SEDAC's controller, and feed-forwards of fewer channels
    exits: SedacBenchConfig = SedacBenchConfig()
    agreement: bool = False  # compare what thresholds write with what one token a step writes, on --data
    few: AgreementConfig = AgreementConfig()
    recall: bool = False  # train a toy from nothing and see what it recalls through the frozen memory, in minutes
    recalling: RecallConfig = RecallConfig()

    def measure(self, model: ModelFlags, data: tuple[Path, ...]) -> tuple[Table, dict[str, Any]] | None:
        """The table that shows it and the result of the first probe asked for; None: of none."""
        if self.train:
            return training_table, self._training(model)
        if self.step:
            return steps_table, benchmark_steps(model.open()[0], self.denoising)
        if self.runtimes:
            return runtimes_table, benchmark_runtimes(model.open()[0], self.engines)
        if self.sedac:
            return sedac_bench_table, benchmark_sedac(model.open()[0], self.exits)
        if self.agreement:
            return agreement_table, self._agreement(model, data)
        if self.recall:
            set_threads(1 if model.threads is None else model.threads)  # so small a model gains nothing by more
            return recall_table, recall(self.recalling)
        return None

    def _training(self, model: ModelFlags) -> dict[str, Any]:
        names = ("model", "precision", "edge_profile", "threads")
        given: dict[str, Any] = {name: value for name in names if (value := getattr(model, name)) is not None}
        return benchmark_recipe(TrainConfig(recipe=self.recipe, data_dir=self.data_dir, **given), self.training)

    def _agreement(self, model: ModelFlags, data: tuple[Path, ...]) -> dict[str, Any]:
        denoiser, tokenizer = model.open()
        ids = [tokenizer.encode(document.text) for document in read_documents(data)]
        return agreement(denoiser, ids, text_plan(denoiser, tokenizer, None), self.few)
