"""The flags of `bench`: what to measure, and on what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffulex_edge.bench.agreement import AgreementConfig
from diffulex_edge.bench.flops import TrainingBenchConfig
from diffulex_edge.bench.measure import BenchConfig
from diffulex_edge.bench.steps import StepBenchConfig
from diffulex_edge.cli.flags import ModelFlags
from diffulex_edge.suite.workplace import SuiteConfig
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
    data_dir: Path = TrainConfig.data_dir  # prepared data that --train and --suite read
    training: TrainingBenchConfig = TrainingBenchConfig()
    step: bool = False  # measure one denoise step instead, over the floor of its arithmetic and its weights
    denoising: StepBenchConfig = StepBenchConfig()
    agreement: bool = False  # compare what thresholds write with what one token a step writes, on --data
    few: AgreementConfig = AgreementConfig()
    suite: Literal["seeds"] | None = None  # measure the rows of the seeds' experiments that are missing, on --data
    verdict: bool = False  # apply seed 002's rules to the rows that the suite measured
    experiments: SuiteConfig = SuiteConfig()

    @property
    def json(self) -> str | None:
        return self.model.json
