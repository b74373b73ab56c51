"""Text that the model writes, and what a judge, repetition and spelling say of it: always all of them together."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffulex_edge.bench import repetition
from diffulex_edge.bench.judge import KneserNey
from diffulex_edge.bench.progress import Advance, quiet
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.text.corpus import Document
from diffulex_edge.text.script import ill_formed, script_errors
from diffulex_edge.text.tokenizer import Tokenizer

ROMAN = "roman"


@dataclass(frozen=True)
class Prompt:
    text: str
    ids: list[int]
    reference: list[int]  # how the document went on


def choose_prompts(
    documents: Sequence[Document], tokenizer: Tokenizer, n: int, *, words: int, new_tokens: int, seed: int
) -> list[Prompt]:
    """n stretches of `words` words from random places, half of them from Roman documents where there are both kinds."""
    rng = np.random.default_rng(seed)
    roman = [document for document in documents if document.script == ROMAN]
    others = [document for document in documents if document.script != ROMAN]
    halves = (roman, others) if roman and others else (list(documents),)
    found = []
    for i in range(n):
        pool = halves[i % len(halves)]
        found.append(_prompt(pool[int(rng.integers(len(pool)))].text, tokenizer, words, new_tokens, rng))
    return found


def _prompt(text: str, tokenizer: Tokenizer, words: int, new_tokens: int, rng: np.random.Generator) -> Prompt:
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    words = min(words, max(1, len(starts) // 2))  # a short document keeps something to be compared with
    latest = max(0, len(starts) - words - new_tokens)  # a token is at most a word, so the reference is long enough
    first = int(rng.integers(latest + 1))
    begin = starts[first] if starts else 0
    end = starts[first + words] if first + words < len(starts) else len(text)
    stem = text[begin:end].rstrip()
    rest = text[begin + len(stem) : end + 16 * new_tokens]
    return Prompt(stem, tokenizer.encode(stem), tokenizer.encode(rest)[:new_tokens])


BATCH = 16  # texts that are written together


def write(
    denoiser: Denoiser, prompts: Sequence[Prompt], plan: Plan, *, batch_size: int = BATCH, advance: Advance = quiet
) -> list[list[int]]:
    """What the model writes after each prompt, up to and without its end of text."""
    texts: list[list[int]] = []
    for start in range(0, len(prompts), batch_size):
        batch = [prompt.ids for prompt in prompts[start : start + batch_size]]
        texts += [kept(tokens, plan) for tokens in finish(decode(denoiser, batch, plan)).tokens]
        advance(len(batch))
    return texts


def kept(tokens: Sequence[int], plan: Plan) -> list[int]:
    """The tokens of a row that a reader gets to see: its stop id is none."""
    return list(tokens[:-1] if tokens and tokens[-1] in plan.stop_ids else tokens)


def verdict(
    texts: Sequence[Sequence[int]], prompts: Sequence[Prompt], tokenizer: Tokenizer, judge: KneserNey | None
) -> dict[str, Any]:
    """Every figure of a set of continuations; None for what cannot be said of so little text.

    judge_ppl is exp of the judge's mean nats a token, given the prompt. The rates are errors over words, all texts
    together.
    """
    spelt = [tokenizer.decode(text) for text in texts]
    scripts = [script_errors(text, prompt.text) for text, prompt in zip(spelt, prompts, strict=True)]
    forms = [ill_formed(text) for text in spelt]
    return {
        "judge_ppl": _perplexity(texts, prompts, judge) if judge else None,
        "entropy": repetition.entropy(texts),
        "rep4": repetition.rep(texts, 4),
        "distinct2": repetition.distinct(texts, 2),
        "script_error_rate": _pooled(scripts),
        "ill_formed_rate": _pooled(forms),
        "mean_tokens": float(np.mean([len(text) for text in texts])) if texts else None,
    }


def _perplexity(texts: Sequence[Sequence[int]], prompts: Sequence[Prompt], judge: KneserNey) -> float | None:
    whole = [[*prompt.ids, *text] for prompt, text in zip(prompts, texts, strict=True)]
    scored = [nats[len(prompt.ids) :] for nats, prompt in zip(judge.log_probs(whole), prompts, strict=True)]
    nats = np.concatenate(scored) if scored else np.zeros(0)
    return math.exp(-nats.mean()) if len(nats) else None


def _pooled(rates: Sequence[Any]) -> float | None:
    total = sum(rate.total for rate in rates)
    return sum(rate.errors for rate in rates) / total if total else None
