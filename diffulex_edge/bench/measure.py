"""`bench`: speed with its error, its cost and its quality in one row.

Runs are interleaved A B A B, so that a machine that slows down slows all alike, and ratios come from pairs. Only tokens
that a reader gets count: none behind an end of text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from diffulex_edge.bench import rows, runs, variants
from diffulex_edge.bench.energy import EnergySource, energy_source
from diffulex_edge.bench.environment import environment, number_type_of
from diffulex_edge.bench.judging import judge_of_data, judge_of_documents
from diffulex_edge.bench.report import plain
from diffulex_edge.bench.texts import Texts
from diffulex_edge.bench.variants import SWEEPS, Skipped, Sweeper, Variant
from diffulex_edge.errors import UsageError
from diffulex_edge.machine import NUMBER_TYPES
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.depth import LinearDepth
from diffulex_edge.runtime.plan import MODES, Plan, plan_for
from diffulex_edge.runtime.sampler import choose_sampler
from diffulex_edge.runtime.suffix import choose_suffix
from diffulex_edge.runtime.text import prompt_ids, text_plan
from diffulex_edge.text.corpus import Document
from diffulex_edge.text.demo import demo_documents
from diffulex_edge.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    modes: tuple[str, ...] = ("full", "block", "block_frozen")  # seed 000's three
    baseline: str | None = None  # the variant that ratios refer to; None: the first
    prompts: tuple[str, ...] = ("मैं कल बाज़ार गया था", "mai kal bazaar gaya tha")
    max_new_tokens: int = 128
    steps: int | None = None  # reverse steps a block; None: the model's own
    block_size: int | None = None  # tokens; None: the model's own
    suffix_window: int | None = None  # tokens ahead of a block that a canvas reads, and few further on; None: all
    min_decode_layers: int = 0  # layers of the first step; 0: all layers at every step
    equal_tokens_per_step: bool = True  # give longer blocks more steps, so that all modes show as many tokens a step
    ignore_eos: bool = False  # never write an end of text, so that every run has max_new_tokens
    runs_per_prompt: int = 3
    warmup_runs: int = 1  # not counted
    sweeps: tuple[str, ...] = ()  # of steps, block, depth, quant, engine: around the last of the modes
    slowest_run: float = 120.0  # seconds; a variant whose warm-up takes longer is left out
    temperature: float = 0.0  # 0: the likeliest token
    quality_documents: int = 16  # documents that block_nelbo is measured on
    quality_window: int = 256  # tokens of each
    quality_samples: int = 2  # masks drawn for each block
    judge_data: Path = Path(
        "data/processed"
    )  # folder of `prepare` that the judge learns from; without it, the quality text
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "steps", "block_size", "runs_per_prompt", "quality_documents", "quality_window"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        if self.warmup_runs < 0 or self.quality_samples < 1:
            raise UsageError(f"warmup_runs={self.warmup_runs} must not be negative, quality_samples not below 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed={self.seed} must be from 0 to 2^63 - 1")
        for name, choices in (("modes", MODES), ("sweeps", SWEEPS)):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise UsageError(f"{name}: {' '.join(getattr(self, name))} names one of them twice")
            unknown = [value for value in getattr(self, name) if value not in choices]
            if unknown:
                raise UsageError(f"{name}: {unknown[0]!r} is not one of {', '.join(choices)}")
        if not self.modes or not self.prompts:
            raise UsageError("bench needs at least one mode and one prompt")


def benchmark(
    denoiser: Denoiser,
    tokenizer: Tokenizer,
    config: BenchConfig = BenchConfig(),
    documents: Sequence[Document] | None = None,
    energy: EnergySource | None = None,
) -> dict[str, Any]:
    """Measures every mode and sweep; documents are for the quality, the generated corpus where none are given."""
    with TemporaryDirectory(prefix="bench-") as work:
        return _benchmark(denoiser, tokenizer, config, documents, energy or energy_source(), Path(work))


def _benchmark(
    denoiser: Denoiser,
    tokenizer: Tokenizer,
    config: BenchConfig,
    documents: Sequence[Document] | None,
    energy: EnergySource,
    work: Path,
) -> dict[str, Any]:
    given = list(documents or demo_documents(config.quality_documents, config.seed))[: config.quality_documents]
    texts = Texts.read(given, tokenizer)
    judge = judge_of_data(config.judge_data, tokenizer) or judge_of_documents(texts.ids, tokenizer)
    prompts = [prompt_ids(tokenizer, text) for text in config.prompts]
    longest = max(map(len, prompts)) + config.max_new_tokens
    sweeper = partial(Sweeper, equal_tokens_per_step=config.equal_tokens_per_step, folder=work, longest=longest)
    chosen, skipped = _choose(denoiser, _plan(denoiser, tokenizer, config), config, sweeper)
    chosen, slow = runs.warm_up(chosen, prompts[0], config.warmup_runs, config.slowest_run)
    names = [variant.name for variant in chosen]
    baseline = config.baseline or (names or ["none"])[0]
    if baseline not in names:
        left_out = "; ".join(f"{each.name}: {each.reason}" for each in (*skipped, *slow))
        raise UsageError(f"{baseline=} is not among the variants that can be measured ({', '.join(names)}; {left_out})")
    measured, scope = runs.interleaved(chosen, prompts, config.runs_per_prompt, energy)
    quality = rows.Quality(tokenizer, texts, judge, config.quality_window, config.quality_samples, config.seed)
    table = [rows.row(variant, measured[variant.name], measured[baseline], quality) for variant in chosen]
    rows.add_utility(table, baseline)
    result = {
        "baseline": baseline,
        "rows": table,
        "skipped": [{"name": each.name, "reason": each.reason} for each in (*skipped, *slow)],
        "energy_source": energy.name,
        "utility": rows.utility_note(table),
        "quality_text": "the documents given" if documents else "generated sentences, since no documents were given",
        "judge_trained_on": judge.trained_on,
        "peak_rss_scope": scope,  # run, or the whole process where the kernel keeps no other
        "environment": environment(number_type_of(denoiser)),
    }
    return plain(result)


def _plan(denoiser: Denoiser, tokenizer: Tokenizer, config: BenchConfig) -> Plan:
    plan = plan_for(
        denoiser.spec,
        max_new_tokens=config.max_new_tokens,
        block_size=config.block_size,
        steps=config.steps,
        sampler=choose_sampler(config.temperature),
        suffix=choose_suffix(config.suffix_window),
        depth=LinearDepth(config.min_decode_layers),
        banned=(tokenizer.eos_id,) if config.ignore_eos else (),
        seed=config.seed,
    )
    return text_plan(denoiser, tokenizer, plan)


def _choose(
    denoiser: Denoiser, plan: Plan, config: BenchConfig, sweeper: Callable[[Variant, Plan], Sweeper]
) -> tuple[list[Variant], list[Skipped]]:
    """The modes, and the sweeps around the last mode that the model can do."""
    dtype, equal = number_type_of(denoiser), config.equal_tokens_per_step
    name = next((name for name, kind in NUMBER_TYPES.items() if kind == dtype), str(dtype))
    found = list(variants.modes(denoiser, plan, config.modes, name, equal_tokens_per_step=equal))
    able = [each for each in found if isinstance(each, Variant)]
    if able:
        around = sweeper(able[-1], plan)
        for sweep in config.sweeps:
            found += SWEEPS[sweep](around)
    return [each for each in found if isinstance(each, Variant)], [each for each in found if isinstance(each, Skipped)]
