"""Rows that compare: models and plans decode the same prompts in turn, and each gets its speed and its quality."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from diffulex_edge.api import SHIPPED
from diffulex_edge.bench import rows, runs
from diffulex_edge.bench.contexts import context_bytes
from diffulex_edge.bench.energy import energy_source
from diffulex_edge.bench.generation import BATCH
from diffulex_edge.bench.variants import NUMBERS, Skipped, Variant, fit, in_program
from diffulex_edge.errors import BackendUnavailable
from diffulex_edge.machine import set_threads
from diffulex_edge.model.base import Denoiser
from diffulex_edge.model.compiled import compiled
from diffulex_edge.runtime.depth import DepthSchedule, LinearDepth
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.reveal import RevealAbove, RevealTop
from diffulex_edge.runtime.text import prompt_ids, text_plan
from diffulex_edge.suite.frontier import frontier
from diffulex_edge.suite.jobs import RowOnly
from diffulex_edge.suite.workplace import Workplace
from diffulex_edge.text.tokenizer import Tokenizer

SAMPLED = 64  # tokens that are sampled after a prompt, to be judged
UNIT = 32  # tokens that `steps` are counted for, in blocks of any size
PROMPTS = ("मैं कल बाज़ार गया था", "mai kal bazaar gaya tha")


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One side of a comparison: a model, a mode, and what its plan says beside."""

    title: str
    model: str
    mode: str = "block_frozen"
    number_type: str = "fp32"
    steps: int = 12  # for every 32 tokens, whatever the block size
    block_size: int = 32  # tokens
    depth: DepthSchedule = LinearDepth()
    confidence_stop: float | None = None  # show all that is at least so probable; None: as many as the step's share
    compiled: bool = False  # the speed is that of the compiled step; what is written is the same
    program: str | None = None  # one of bench's programs, made for the row; None: PyTorch

    def settings(self) -> dict[str, Any]:
        """What is not as it is by default: a setting that comes later leaves the rows of before as they are."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {name: repr(value) if name == "depth" else value for name, value in values.items()}

    def variant(self, place: Workplace, new_tokens: int) -> Variant:
        denoiser, tokenizer = place.model(self.model)
        denoiser = NUMBERS[self.number_type](denoiser) if self.number_type != "fp32" else denoiser
        plan = self.plan(denoiser, tokenizer, new_tokens)
        return Variant(self.title, self.mode, denoiser, plan, self.block_size, self.number_type)

    def plan(self, denoiser: Denoiser, tokenizer: Tokenizer, new_tokens: int) -> Plan:
        """Never ends a text early, so that all sides write as many tokens."""
        plan = plan_for(
            denoiser.spec,
            max_new_tokens=new_tokens,
            block_size=self.block_size,
            steps=self.steps,
            depth=self.depth,
            reveal=RevealTop() if self.confidence_stop is None else RevealAbove(self.confidence_stop),
            banned=(tokenizer.eos_id,),
        )
        plan = text_plan(denoiser, tokenizer, plan)
        return fit(self.mode, plan, denoiser.spec, equal_tokens_per_step=True, unit=UNIT)


@dataclass(frozen=True, kw_only=True)
class Comparison(RowOnly):
    """Sides in turn, A B A B, on one thread. The first is the baseline that ratios refer to."""

    alone: ClassVar[bool] = True
    name: str
    entrants: tuple[Entrant, ...]
    new_tokens: int = 256
    rounds: int = 3
    prompts: tuple[str, ...] = PROMPTS
    warm_ups: int = 1  # runs of each side that are not counted
    slowest_run: float = 400.0  # seconds; a side that takes longer in a warm-up is left out, and named
    script: str | None = None  # of the documents that sampled text goes on from; None: all

    @property
    def needs(self) -> tuple[str, ...]:
        """The shipped model is there."""
        return tuple(dict.fromkeys(entrant.model for entrant in self.entrants if entrant.model != SHIPPED))

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "entrants": [entrant.settings() for entrant in self.entrants],
            "new_tokens": self.new_tokens,
            "rounds": self.rounds,
            "warm_ups": self.warm_ups,
            "slowest_run": self.slowest_run,
            "script": self.script,
            **({"prompts": self.prompts} if self.prompts != PROMPTS else {}),
        }

    def run(self, place: Workplace) -> dict[str, Any]:
        set_threads(1)
        with TemporaryDirectory() as folder:  # of the programs, which are read as long as they run
            return self._measured(place, Path(folder))

    def _measured(self, place: Workplace, folder: Path) -> dict[str, Any]:
        tokenizer = place.model(self.entrants[0].model)[1]
        prompts = [prompt_ids(tokenizer, text) for text in self.prompts]
        longest = max(map(len, prompts)) + self.new_tokens
        plain, chosen, skipped = self._variants(place, longest, folder)
        timed = [
            replace(each, denoiser=compiled(each.denoiser)) if self._of(each).compiled else each for each in chosen
        ]
        timed, slow = runs.warm_up(timed, prompts[0], self.warm_ups, self.slowest_run)
        energy = energy_source()
        measured, scope = runs.interleaved(timed, prompts, self.rounds, energy)
        chosen = [each for each in chosen if each.name in measured]
        quality = place.quality(tokenizer)
        table = []
        for variant in chosen:
            row = rows.row(variant, measured[variant.name], measured[chosen[0].name], quality)
            model, plan = plain[variant.name].denoiser, variant.plan  # a program's context is not in its own hands
            size = context_bytes(model, plan.context, self.new_tokens, plan.block_size)
            about = {"model": self._of(variant).model, "context_bytes": size}
            table.append({**row, **about, "sampled": self._sampled(place, variant)})
        return {
            "baseline": chosen[0].name,
            "rows": table,
            "skipped": [{"name": each.name, "reason": each.reason} for each in (*skipped, *slow)],
            "energy_source": energy.name,
            "peak_rss_scope": scope,
            "judge_trained_on": quality.judge.trained_on,
        }

    def _of(self, variant: Variant) -> Entrant:
        return next(entrant for entrant in self.entrants if entrant.title == variant.name)

    def _variants(
        self, place: Workplace, longest: int, folder: Path
    ) -> tuple[dict[str, Variant], list[Variant], list[Skipped]]:
        """Each side as PyTorch runs it, by name; as it is to run, in its program if it has one; and what cannot."""
        plain: dict[str, Variant] = {}
        chosen: list[Variant] = []
        skipped: list[Skipped] = []
        for entrant in self.entrants:
            try:
                variant = plain[entrant.title] = entrant.variant(place, self.new_tokens)
                program = entrant.program
                chosen.append(variant if program is None else in_program(variant, program, longest, folder))
            except BackendUnavailable as error:
                skipped.append(Skipped(entrant.title, str(error)))
        return plain, chosen, skipped

    def _sampled(self, place: Workplace, variant: Variant) -> dict[str, Any]:
        """The same for all rows of the suite that have this side, so measured once in a process."""
        entrant = self._of(variant)
        key = replace(entrant, title="", compiled=False), self.script
        if key not in place.judged:
            tokenizer = place.model(entrant.model)[1]
            plan = entrant.plan(variant.denoiser, tokenizer, SAMPLED)
            prompts = place.prompts(tokenizer, self.script, SAMPLED)
            judge, batch_size = place.quality(tokenizer).judge, 1 if entrant.program else BATCH
            found = frontier(variant.denoiser, tokenizer, prompts, plan, judge, batch_size=batch_size)
            place.judged[key] = found
        return place.judged[key]
