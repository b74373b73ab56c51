"""A row of the benchmark: a variant's speed, its cost, and the quality without which neither is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffulex_edge.bench import bounds, repetition
from diffulex_edge.bench.judging import Judge
from diffulex_edge.bench.runs import Runs
from diffulex_edge.bench.statistics import paired_bootstrap
from diffulex_edge.bench.texts import Texts, block_figures
from diffulex_edge.bench.variants import Variant
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.text.tokenizer import Tokenizer


@dataclass(eq=False)
class Quality:
    """Measures a variant's block_nelbo on real text, once for all that share it: steps are no part of it."""

    tokenizer: Tokenizer
    texts: Texts
    judge: Judge
    window: int  # tokens of each document
    n_samples: int
    seed: int
    known: dict[Any, dict[str, Any]] = field(default_factory=dict)

    def block_nelbo(self, variant: Variant) -> dict[str, Any]:
        layers = depths(variant.plan, variant.block_size, variant.denoiser.spec.n_layers)
        shared = variant.plan.steps if layers else None
        key = (variant.mode, variant.block_size, variant.plan.depth if layers else None, shared, id(variant.denoiser))
        if key not in self.known:
            value, details = block_figures(
                variant.denoiser,
                self.tokenizer,
                self.texts,
                block_size=variant.block_size,
                window=self.window,
                n_samples=self.n_samples,
                seed=self.seed,
                reading=bounds.Reading(schedule=variant.plan.schedule, depths=layers),
                modes=(variant.mode,),
            )
            self.known[key] = {
                "block_nelbo": value[variant.mode],  # bits a character
                "block_nelbo_stderr": details["block_nelbo_stderr"].get(variant.mode),
                "block_nelbo_missing": details["block_nelbo_missing"].get(variant.mode),
            }
        return self.known[key]

    def of_text(self, variant: Variant, texts: Sequence[list[int]]) -> dict[str, Any]:
        """The liveliness of what was written, what the judge says of it, and seed 000's degenerate PLL(t=0)."""
        written = [text for text in texts if text]
        nats = np.concatenate(self.judge.model.log_probs(written)) if written else np.zeros(0)
        parts = bounds.windows(written, 256)
        whole = parts and "full" in variant.denoiser.spec.contexts  # a program has not: it reads blocks
        return {
            "entropy": repetition.entropy(texts),  # nats
            "rep4": repetition.rep(texts, 4),
            "distinct2": repetition.distinct(texts, 2),
            "judge_ppl": float(np.exp(-nats.mean())) if len(nats) else None,
            "pll_t0": bounds.visible_log_probs(variant.denoiser, parts) if whole else None,  # nats a token
        }


def depths(plan: Plan, block_size: int, n_layers: int) -> bounds.Depths | None:
    """How deep the plan would run at each share that is masked; None where it always runs all layers."""
    steps = min(plan.steps, block_size)
    table = torch.tensor([plan.depth.layers(index, steps, n_layers) for index in range(steps)])
    if bool((table == n_layers).all()):
        return None

    def layers(share: Tensor) -> Tensor:
        return table[((1 - plan.schedule.time(share)) * steps).long().clamp(max=steps - 1)]

    return layers


def row(variant: Variant, runs: Runs, baseline: Runs, quality: Quality) -> dict[str, Any]:
    """Medians over runs, and the ratio of speeds to the baseline with its interval."""
    latency, kept, forwards = np.array(runs.latency), runs.kept, np.array(runs.forwards, np.float64)
    interval = paired_bootstrap(runs.rate, baseline.rate)
    joules = [value for value in runs.joules if value is not None]
    tokens = float(kept.sum())
    return {
        "name": variant.name,
        **variant.settings,
        "runs": len(latency),
        "tokens_per_s": float(np.median(runs.rate)),
        "tokens_per_s_mean": tokens / float(latency.sum()),
        "speed_ratio": {"value": interval.ratio, "low": interval.low, "high": interval.high},
        "latency_ms": {"p50": float(np.median(latency)) * 1e3, "p95": float(np.quantile(latency, 0.95)) * 1e3},
        "ms_per_token": float(np.median(latency)) * 1e3 / float(np.median(kept)) if np.median(kept) else None,
        "forwards": float(forwards.mean()),
        "commits": float(np.mean(runs.commits)),
        "tokens_per_forward": tokens / float(forwards.sum()) if forwards.sum() else None,
        "tokens_kept": float(kept.mean()),
        "peak_rss_bytes": max(runs.peak),
        "joules_per_token": sum(joules) / tokens if joules and tokens else None,
        **quality.block_nelbo(variant),
        **quality.of_text(variant, runs.tokens),
    }


def add_utility(rows: list[dict[str, Any]], baseline: str) -> None:
    """Quality / (latency x memory x energy) of seed 000 as a ratio to the baseline; None where a factor is not known.

    Quality is the mean probability of a character, 2^-block_nelbo; latency is a kept token's. Energy counts where
    all rows have it.
    """
    base = next(each for each in rows if each["name"] == baseline)
    factors = ["ms_per_token", "peak_rss_bytes", *(["joules_per_token"] if _has_energy(rows) else [])]
    for each in rows:
        known = all(each[name] and base[name] for name in (*factors, "block_nelbo"))
        if not known:
            each["utility"] = None
            continue
        cost = np.prod([each[name] / base[name] for name in factors])
        each["utility"] = float(2 ** (base["block_nelbo"] - each["block_nelbo"]) / cost)


def utility_note(rows: list[dict[str, Any]]) -> str:
    factors = "latency a token x peak memory" + (" x energy a token" if _has_energy(rows) else "")
    left_out = "" if _has_energy(rows) else "; energy is left out, having no source"
    return f"2^-block_nelbo / ({factors}), as a ratio to the baseline{left_out}"


def _has_energy(rows: list[dict[str, Any]]) -> bool:
    return all(each["joules_per_token"] for each in rows)
