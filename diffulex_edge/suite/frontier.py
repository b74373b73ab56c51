"""Sampled text of plans at several temperatures: what a judge says of it where it is as lively as real text.

A judge's perplexity alone rewards dull text; entropy alone rewards noise. So both are measured along the temperature,
and the perplexity is read off where the entropy is that of the documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from diffulex_edge.bench import generation
from diffulex_edge.bench.judging import Judge
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.sampler import choose_sampler
from diffulex_edge.text.tokenizer import Tokenizer

TEMPERATURES = (0.7, 1.0, 1.3, 1.6, 1.9)
TOP_P = 0.9


def frontier(
    denoiser: Denoiser,
    tokenizer: Tokenizer,
    prompts: Sequence[generation.Prompt],
    plan: Plan,
    judge: Judge,
    *,
    batch_size: int = generation.BATCH,
) -> dict[str, Any]:
    """The points along the temperature; the documents' own; and the figures at their entropy, None out of reach.

    The plan should not end a text early, and only as long a piece of a document is looked at: short texts have less
    entropy. A program writes one text at a time: its batch size is 1.
    """
    points = []
    for temperature in TEMPERATURES:
        hot = replace(plan, sampler=choose_sampler(temperature, top_p=TOP_P))
        written = generation.write(denoiser, prompts, hot, batch_size=batch_size)
        points.append({"temperature": temperature, **generation.verdict(written, prompts, tokenizer, judge.model)})
    went_on = [prompt for prompt in prompts if len(prompt.reference) == plan.max_new_tokens]
    documents = generation.verdict([prompt.reference for prompt in went_on], went_on, tokenizer, judge.model)
    entropy = documents["entropy"]
    return {
        "points": points,
        "documents": documents,
        "ppl_at_entropy": at_entropy(points, "judge_ppl", entropy),
        "rep4_at_entropy": at_entropy(points, "rep4", entropy),
    }


def at_entropy(points: Sequence[dict[str, Any]], name: str, entropy: float) -> float | None:
    """A figure at an entropy (nats), on straight lines from point to point; None where none of these reaches it."""
    for low, high in pairwise(points):
        if low["entropy"] <= entropy < high["entropy"] and None not in (low[name], high[name]):
            share = (entropy - low["entropy"]) / (high["entropy"] - low["entropy"])
            return float(low[name] + share * (high[name] - low[name]))
    return None
