"""`eval`: how good is the model, in figures that cannot be had by cheating; each beside those that would expose it.

bits_per_char counts NFC code points, so tokenizers can be compared. An end of text is not scored, by model or
judge. Errors are standard errors over documents, whose windows are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffulex_edge.bench import bounds, calibration, generation, judging
from diffulex_edge.bench.progress import bar
from diffulex_edge.bench.report import plain
from diffulex_edge.bench.statistics import BITS, ratio
from diffulex_edge.bench.texts import Texts, block_figures
from diffulex_edge.diffusion.schedule import find_schedule
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.plan import MODES, Plan, mode_plan, plan_for
from diffulex_edge.runtime.sampler import sampler_of
from diffulex_edge.runtime.score import masked_log_probs
from diffulex_edge.runtime.text import text_plan
from diffulex_edge.text.corpus import Document
from diffulex_edge.text.script import foreign_ids, script_of
from diffulex_edge.text.tokenizer import Tokenizer

PLL_T0 = (
    "degenerate: every token is visible to its own guess, so a copyist scores 0 on any text; kept for seed 000's sake"
)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    window: int = 256  # tokens scored together by the NELBO
    samples: int = 4  # masks drawn for each window
    block_size: int = 32  # tokens of a block in block_nelbo
    block_window: int = 256  # tokens from the start of each document that block_nelbo reads, at most
    block_samples: int = 1  # masks drawn for each block, the same for all modes
    pll_positions: int = 2  # tokens of each window that masked_pll hides, one at a time
    generations: int = 200  # texts that are generated, half of them from Roman prompts; 0: none
    prompt_words: int = 8  # words of a document that make a prompt
    new_tokens: int = 64  # tokens generated after each prompt
    mode: str | None = (
        None  # mode that generates: full, block or block_frozen; None: block_frozen where it was trained, else block
    )
    steps: int | None = None  # reverse steps a block, when generating; None: the model's own
    temperature: float | None = None  # of the generated text; 0: the likeliest token; None: the model's own
    top_k: int | None = None  # tokens that generating chooses from; 0: all; None: the model's own
    top_p: float | None = None  # probability mass that generating chooses from; None: the model's own
    keep_script: bool | None = None  # True: generate in the script, or scripts, of each prompt; None: the model's own
    judge_data: Path = Path(
        "data/processed"
    )  # folder of `prepare` that the judge learns from; without it, the text itself
    batch_tokens: int = 8192  # tokens in one forward, at most
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_one = (
            "window",
            "samples",
            "block_size",
            "block_window",
            "block_samples",
            "prompt_words",
            "batch_tokens",
        )
        for name in (*at_least_one, "pll_positions", "new_tokens", "steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed={self.seed} must be from 0 to 2^63 - 1")
        if self.generations < 0:
            raise UsageError(f"generations={self.generations} must not be negative")
        if self.mode is not None and self.mode not in MODES:
            raise UsageError(f"mode={self.mode!r} is not one of {', '.join(MODES)}")


def evaluate(
    denoiser: Denoiser, tokenizer: Tokenizer, documents: Sequence[Document], config: EvalConfig = EvalConfig()
) -> dict[str, Any]:
    """Every figure of `eval --json`; what cannot be measured is None, and `details` says why.

    `stderr` is that of bits_per_char. `masked_pll` and `pll_t0` are log-probabilities in nats a token (0 is best),
    `entropy` is in nats, block_nelbo in bits a character.
    """
    texts = Texts.read(documents, tokenizer)
    guesses = calibration.Guesses()
    reading = bounds.Reading(schedule=find_schedule(denoiser.spec.mask_schedule), batch_tokens=config.batch_tokens)
    likelihood, details = _likelihood(denoiser, texts, config, replace(reading, observe=guesses))
    block, block_details = block_figures(
        denoiser,
        tokenizer,
        texts,
        block_size=config.block_size,
        window=config.block_window,
        n_samples=config.block_samples,
        seed=config.seed,
        reading=reading,
    )
    judge = judging.judge_of_data(config.judge_data, tokenizer) or judging.judge_of_documents(texts.ids, tokenizer)
    written, written_details = _generation(denoiser, tokenizer, texts, judge, config)
    figures, calibration_details = _calibration(guesses)
    details |= {**block_details, **calibration_details, **written_details, "notes": {"pll_t0": PLL_T0}}
    details["judge"] = _judged(judge, texts, likelihood["bits_per_char"])
    return plain({**likelihood, "block_nelbo": block, **written, **figures, "details": details})


def _likelihood(
    denoiser: Denoiser, texts: Texts, config: EvalConfig, reading: bounds.Reading
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The NELBO whole and by script, and the two pseudo-likelihoods."""
    parts = bounds.windows(texts.ids, config.window)
    total = sum(len(part.ids) for part in parts)
    with bar("NELBO", total * config.samples) as advance:
        watched = replace(reading, advance=advance)
        bound = bounds.nelbo(denoiser, parts, n_samples=config.samples, seed=config.seed, reading=watched)
    with bar("pseudo-likelihood at t = 0", total) as advance:
        t0 = bounds.visible_log_probs(denoiser, parts, replace(reading, observe=None, advance=advance))
    nats = np.bincount(bound.document, bound.nats.mean(1), len(texts.ids)).astype(np.float64)
    whole = _per_char_and_token(nats, texts, np.ones(len(nats), bool))
    scripts = np.array([document.script for document in texts.documents])
    samples = bound.nats.shape[1]
    draws = bound.nats.std(1, ddof=1) / math.sqrt(samples) if samples > 1 else np.full(len(parts), np.nan)
    figures = {
        **{name: whole[name] for name in ("bits_per_char", "nelbo_nats_per_token", "stderr")},
        "by_script": {
            str(script): _per_char_and_token(nats, texts, scripts == script) for script in np.unique(scripts)
        },
        "masked_pll": _masked_pll(denoiser, parts, config),
        "pll_t0": t0,
    }
    masks = BITS * float(np.sqrt((draws**2).sum()) / texts.chars.sum())
    counts = {name: whole[name] for name in ("documents", "characters", "tokens", "stderr_nats_per_token")}
    return figures, {**counts, "stderr_of_masks": masks, "windows": len(parts)}


def _per_char_and_token(nats: NDArray[np.float64], texts: Texts, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    bits = ratio(nats[chosen] * BITS, texts.chars[chosen])
    token = ratio(nats[chosen], texts.tokens[chosen])
    return {
        "bits_per_char": bits.value,
        "nelbo_nats_per_token": token.value,
        "stderr": bits.stderr,
        "stderr_nats_per_token": token.stderr,
        "documents": int(chosen.sum()),
        "characters": int(texts.chars[chosen].sum()),
        "tokens": int(texts.tokens[chosen].sum()),
    }


def _masked_pll(denoiser: Denoiser, parts: Sequence[bounds.Window], config: EvalConfig) -> float:
    """Mean log p of single hidden tokens, at random places of every window, with all else of the window visible."""
    rng, total, scored = np.random.default_rng(config.seed), 0.0, 0
    with bar("masked pseudo-likelihood", len(parts)) as advance:
        for part in parts:
            fresh = np.arange(part.given, len(part.ids))
            chosen = rng.choice(fresh, min(config.pll_positions, len(fresh)), replace=False)
            weight = len(fresh) / len(chosen)  # a short window's tokens do not count for more
            total += weight * float(masked_log_probs(denoiser, part.ids, chosen.tolist()).double().sum())
            scored += len(fresh)
            advance(1)
    return total / scored


def _calibration(guesses: calibration.Guesses) -> tuple[dict[str, Any], dict[str, Any]]:
    """ECE and AURC of the most probable token at masked positions over all noise levels, and in four bands of them."""
    confidence, correct, noise = guesses.arrays()
    bands = []
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = (noise > low) & (noise <= low + 0.25)
        if inside.any():
            band = confidence[inside], correct[inside]
            bands.append(
                {"masked_above": low, "n": int(inside.sum()), "accuracy": float(band[1].mean()), **_curves(*band)}
            )
    return _curves(confidence, correct), {"calibration_by_noise": bands}


def _curves(confidence: NDArray[np.float64], correct: NDArray[np.float64]) -> dict[str, float]:
    return {"ece": calibration.ece(confidence, correct), "aurc": calibration.aurc(confidence, correct)}


def _generation(
    denoiser: Denoiser, tokenizer: Tokenizer, texts: Texts, judge: judging.Judge, config: EvalConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The verdict on generated text, and the same verdict on how the documents themselves went on."""
    mode, drawn = config.mode or generating_mode(denoiser), denoiser.spec.sampling.override(**vars(config))
    plan = plan_for(
        denoiser.spec,
        max_new_tokens=config.new_tokens,
        block_size=config.block_size,
        steps=config.steps,
        sampler=sampler_of(drawn),
        seed=config.seed,
    )
    plan = text_plan(denoiser, tokenizer, mode_plan(mode, plan, denoiser.spec))
    prompts = generation.choose_prompts(
        texts.documents,
        tokenizer,
        config.generations,
        words=config.prompt_words,
        new_tokens=config.new_tokens,
        seed=config.seed,
    )
    written = _written(denoiser, tokenizer, prompts, plan, drawn.keep_script)
    found = generation.verdict(written, prompts, tokenizer, judge.model)
    went_on = [prompt for prompt in prompts if prompt.reference]
    reference = generation.verdict([prompt.reference for prompt in went_on], went_on, tokenizer, judge.model)
    examples = [[prompt.text, tokenizer.decode(text)] for prompt, text in zip(prompts[:4], written[:4], strict=True)]
    about = {
        "texts": len(prompts),
        "mode": mode,
        "steps": plan.steps,
        **asdict(drawn),
    }
    details = {**about, "mean_tokens": found.pop("mean_tokens"), "reference": reference, "examples": examples}
    return found, {"generation": details}


def _written(
    denoiser: Denoiser, tokenizer: Tokenizer, prompts: Sequence[generation.Prompt], plan: Plan, keep_script: bool
) -> list[list[int]]:
    """What follows each prompt. A batch shares what is banned, so prompts whose scripts are kept go by script."""
    scripts = [script_of(prompt.text) if keep_script else "mixed" for prompt in prompts]
    found = {}
    with bar("generating", len(prompts)) as advance:
        for script in dict.fromkeys(scripts):
            own = [prompt for prompt, its in zip(prompts, scripts, strict=True) if its == script]
            kept = plan.ban(foreign_ids(tokenizer, script))
            found[script] = iter(generation.write(denoiser, own, kept, advance=advance))
    return [next(found[script]) for script in scripts]


def generating_mode(denoiser: Denoiser) -> str:
    """The cheapest mode that the weights were trained for; of the untrained ones, the first that the model can do."""
    preferred = ("block_frozen", "block", "full")
    able = [mode for mode in preferred if mode_plan(mode, spec=denoiser.spec).context in denoiser.spec.contexts]
    if not able:
        raise UsageError(f"the model has no context that a mode needs; it has {', '.join(denoiser.spec.contexts)}")
    return next((mode for mode in able if mode in denoiser.spec.trained_modes), able[0])


def _judged(judge: judging.Judge, texts: Texts, bits_per_char: float) -> dict[str, Any]:
    """What the judge learned from and, where it has not seen the documents, its own bits a character of them."""
    about: dict[str, Any] = {
        "model": f"{judging.ORDER}-gram, interpolated modified Kneser-Ney",
        "trained_on": judge.trained_on,
    }
    if not judge.held_out:
        return {
            **about,
            "bits_per_char": None,
            "ratio": None,
            "why": "it was trained on the documents that are evaluated",
        }
    nats = -np.array([nats.sum() for nats in judge.model.log_probs(texts.ids)])
    own = ratio(nats * BITS, texts.chars).value
    return {
        **about,
        "bits_per_char": own,
        "nats_per_token": ratio(nats, texts.tokens).value,
        "ratio": bits_per_char / own,
    }
