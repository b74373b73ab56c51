"""Rows about one model: its training, what held-out text costs it, and the key-value recall of its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from diffulex_edge.bench.quality import EvalConfig, evaluate
from diffulex_edge.machine import set_threads
from diffulex_edge.suite.jobs import RowOnly
from diffulex_edge.suite.workplace import Workplace
from diffulex_edge.train.loop import train
from diffulex_edge.train.recipe import TrainConfig


@dataclass(frozen=True)
class Training:
    """A model of the suite. It goes on where it was interrupted."""

    alone: ClassVar[bool] = False
    name: str
    recipe: str
    max_steps: int
    model: str = "primary"
    seed: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)  # further flags of `train`
    needs: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in ("name", "needs")}

    def ready(self, place: Workplace) -> bool:
        return place.trained(self.name, self.max_steps)

    def run(self, place: Workplace) -> dict[str, Any]:
        config = TrainConfig(
            data_dir=place.data_dir,
            output_dir=place.folder(self.name),
            recipe=self.recipe,
            max_steps=self.max_steps,
            model=self.model,
            seed=self.seed,
            threads=1,
            **self.changes,
        )
        outcome = train(config)
        model, _ = place.model(self.name)
        parameters = sum(p.numel() for p in model.parameters())  # type: ignore[attr-defined]
        told = ("step", "tokens", "seconds", "skipped", "rollbacks")
        return {"parameters": parameters, **{name: outcome[name] for name in told}}


@dataclass(frozen=True)
class Likelihood(RowOnly):
    """Bits a character of the documents, whole and by script, block by block in each mode; and a look at samples."""

    alone: ClassVar[bool] = False
    model: str
    samples: int = 4

    @property
    def name(self) -> str:
        return f"quality-{self.model}"

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.model,)

    @property
    def settings(self) -> dict[str, Any]:
        return asdict(self)

    def run(self, place: Workplace) -> dict[str, Any]:
        set_threads(1)
        denoiser, tokenizer = place.model(self.model)
        config = EvalConfig(
            samples=self.samples,
            block_samples=2,
            generations=2 * place.config.suite_prompts,
            judge_data=place.data_dir,
        )
        found = evaluate(denoiser, tokenizer, place.read, config)
        details = found.pop("details")
        details["generation"].pop("examples")
        return {**found, "details": details}
