"""What a model loses by fewer bits: likelihood of documents, tokens of greedy continuations, and bytes; and the gate.

Both models see the same masks of the same windows, so the difference is far surer than either figure. A continuation is
compared block by block from one prompt: the first block of each, since later ones go on from different texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffulex_edge.bench import bounds
from diffulex_edge.bench.progress import bar
from diffulex_edge.bench.statistics import BITS, ratio
from diffulex_edge.bench.texts import Texts
from diffulex_edge.diffusion.schedule import find_schedule
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.quant.schemes import Scheme
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.sampler import Greedy
from diffulex_edge.runtime.text import prompt_ids, text_plan
from diffulex_edge.text.corpus import Document
from diffulex_edge.text.tokenizer import Tokenizer

PROMPTS = (
    "मैं कल बाज़ार गया",
    "एक समय की बात है",
    "भारत की राजधानी",
    "उसने मुझसे पूछा",
    "mai kal bazaar gaya tha",
    "aaj mausam bahut accha hai",
    "मुझे यह movie बहुत",
    "Once upon a time",
)
BUDGETS = {4: 0.05, 8: 0.01, 16: 0.01}  # bits of a weight -> share of bits a character that may be lost


@dataclass(frozen=True, kw_only=True)
class ParityConfig:
    parity_documents: int = 24  # documents that both models are judged on, the first of those given
    parity_window: int = 256  # tokens scored together
    parity_samples: int = 2  # masks drawn for each window, the same for both
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("parity_documents", "parity_window", "parity_samples"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")


def parity(
    denoiser: Any, quantized: Any, tokenizer: Tokenizer, documents: Sequence[Document], config: ParityConfig
) -> dict[str, Any]:
    """Bits a character of both (NELBO), the share lost and its standard error over documents; agreement.

    `loss` is (after - before) / before: below 0 where the rounded model is the better one by chance. `guess_agreement`
    is of hidden tokens of the documents, all else equal; `token_agreement` of what is written, where a step goes on
    from the one before.
    """
    texts = Texts.read(documents[: config.parity_documents], tokenizer)
    (before, guessed), (after, guessed_after) = (_read(model, texts, config) for model in (denoiser, quantized))
    bits, rounded, lost = (ratio(nats * BITS, texts.chars) for nats in (before, after, after - before))
    return {
        "documents": len(texts.ids),
        "characters": int(texts.chars.sum()),
        "bits_per_char": bits.value,
        "bits_per_char_quantized": rounded.value,
        "loss": lost.value / bits.value,
        "loss_stderr": lost.stderr / bits.value,
        "guess_agreement": float((guessed == guessed_after).double().mean()),
        "token_agreement": _agreement(denoiser, quantized, tokenizer),
    }


def sizes(denoiser: Any, written: int) -> dict[str, Any]:
    """Bytes of the weights that were written, beside those of the model in fp32."""
    whole = sum(4 * p.numel() for p in denoiser.parameters())
    return {"bytes": written, "fp32_bytes": whole, "of_fp32": written / whole}


def budget_of(scheme: Scheme) -> float:
    """What a scheme may lose where nobody says otherwise."""
    return BUDGETS[scheme.weight_bits]


def gate(found: dict[str, Any], budget: float) -> None:
    """Raises UsageError where more is lost than the budget, a share of bits a character; also where it is no number."""
    if not found["loss"] <= budget or not math.isfinite(found["bits_per_char_quantized"]):
        raise UsageError(
            f"{found['bits_per_char_quantized']:.3f} bits a character against {found['bits_per_char']:.3f}:"
            f" {found['loss']:+.1%} is beyond the budget of {budget:.1%}; --force writes it all the same"
        )


def _read(denoiser: Denoiser, texts: Texts, config: ParityConfig) -> tuple[NDArray[np.float64], Tensor]:
    """-log p of each document, at most, (n,); and the likeliest token of every place that was hidden."""
    guesses: list[Tensor] = []
    parts = bounds.windows(texts.ids, config.parity_window)
    reading = bounds.Reading(schedule=find_schedule(denoiser.spec.mask_schedule))
    with bar("NELBO", sum(len(part.ids) for part in parts) * config.parity_samples) as advance:
        watched = replace(reading, advance=advance, observe=lambda logp, *_: guesses.append(logp.argmax(-1)))
        bound = bounds.nelbo(denoiser, parts, n_samples=config.parity_samples, seed=config.seed, reading=watched)
    nats = np.bincount(bound.document, bound.nats.mean(1), len(texts.ids)).astype(np.float64)
    return nats, torch.cat(guesses)


def _agreement(denoiser: Denoiser, quantized: Denoiser, tokenizer: Tokenizer) -> float:
    """The share of tokens of the first block after each of the PROMPTS that both write, the likeliest at each step."""
    plan = text_plan(denoiser, tokenizer, None)
    plan = replace(plan, max_new_tokens=plan.block_size, sampler=Greedy(), stop_ids=())
    same, total = 0, 0
    for prompt in PROMPTS:
        ids = prompt_ids(tokenizer, prompt)
        one, other = (finish(decode(model, [ids], plan)).tokens[0] for model in (denoiser, quantized))
        same += sum(a == b for a, b in zip(one, other, strict=True))
        total += len(one)
    return same / total
