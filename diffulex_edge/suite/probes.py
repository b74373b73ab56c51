"""Rows that need no model of the suite: what a toy recalls through its memory, and a step of the shipped model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from diffulex_edge.api import SHIPPED
from diffulex_edge.bench.recall import RecallConfig, recall
from diffulex_edge.bench.steps import StepBenchConfig, benchmark_steps
from diffulex_edge.machine import set_threads
from diffulex_edge.suite.jobs import RowOnly
from diffulex_edge.suite.workplace import Workplace


@dataclass(frozen=True)
class Recall(RowOnly):
    """Key and value, bound in one block and asked for in later ones."""

    seed: int
    needs: ClassVar[tuple[str, ...]] = ()
    alone: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return f"recall-s{self.seed}"

    @property
    def _config(self) -> RecallConfig:
        return RecallConfig(seeds=(self.seed,))

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self._config)

    def run(self, place: Workplace) -> Mapping[str, Any]:
        set_threads(1)
        found = recall(self._config)
        return {"chance": found["chance"], **found["rows"][0]}


@dataclass(frozen=True)
class Step(RowOnly):
    """A denoise step at batch 1 by engine, over the floor of its arithmetic and its weights."""

    model: str = SHIPPED
    config: StepBenchConfig = StepBenchConfig(lengths=(32,), engines=("eager", "compiled"), step_rounds=51)
    name: ClassVar[str] = "step"
    needs: ClassVar[tuple[str, ...]] = ()
    alone: ClassVar[bool] = True

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def run(self, place: Workplace) -> Mapping[str, Any]:
        set_threads(1)
        found = benchmark_steps(place.model(self.model)[0], self.config)
        return {"steps": found["rows"], "context_length": found["context_length"]}
