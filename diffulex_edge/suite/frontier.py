"""Sampled text of plans at several temperatures: what a judge says of it where it is as lively as real text.

A judge's perplexity alone rewards dull text; entropy alone rewards noise. So both are measured along the temperature,
and the perplexity is read off where the entropy is that of the documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from diffulex_edge.bench import generation
from diffulex_edge.bench.judging import Judge
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.sampler import choose_sampler
from diffulex_edge.text.tokenizer import Tokenizer

TEMPERATURES = (1.0, 1.3, 1.6, 1.9)
TOP_P = 0.9


def frontier(
    denoiser: Denoiser, tokenizer: Tokenizer, prompts: Sequence[generation.Prompt], plan: Plan, judge: Judge
) -> dict[str, Any]:
    """The points along the temperature; the documents' own; and the perplexity at their entropy, None out of reach."""
    points = []
    for temperature in TEMPERATURES:
        hot = replace(plan, sampler=choose_sampler(temperature, top_p=TOP_P))
        written = generation.write(denoiser, prompts, hot)
        points.append({"temperature": temperature, **generation.verdict(written, prompts, tokenizer, judge.model)})
    went_on = [prompt for prompt in prompts if prompt.reference]
    documents = generation.verdict([prompt.reference for prompt in went_on], went_on, tokenizer, judge.model)
    entropy = documents["entropy"]
    return {
        "points": points,
        "documents": documents,
        "ppl_at_entropy": at_entropy(points, "judge_ppl", entropy),
        "rep4_at_entropy": at_entropy(points, "rep4", entropy),
    }


def at_entropy(points: Sequence[dict[str, Any]], name: str, entropy: float) -> float | None:
    """A figure at an entropy (nats), along straight lines between the points; None outside of them."""
    known = sorted((point["entropy"], point[name]) for point in points if point[name] is not None)
    if not known or not known[0][0] <= entropy <= known[-1][0]:
        return None
    entropies, values = zip(*known, strict=True)
    return float(np.interp(entropy, entropies, values))
