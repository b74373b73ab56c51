"""Each family decodes as its makers' loop does, token for token: plain loops over the transformers classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffulex_edge
from diffulex_edge.model.base import NONE
from diffulex_edge.runtime.decode import Finished, decode
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.quota import EvenSplit, OneByOne, Proportional
from diffulex_edge.runtime.reveal import RevealAbove, RevealTop
from diffulex_edge.tests import family_toys as toys

PROMPT = [(7 * i + 11) % 250 for i in range(21)]  # no multiple of any block
Scorer = Callable[[Tensor], Tensor]  # ids (1, S) -> probabilities (S, V) that speak about each token


def opened(name: str, folder: Path) -> tuple[Any, Scorer]:
    family = toys.FAMILIES[name]
    model = toys.hub_model(family, seed=3)
    denoiser, _ = diffulex_edge.load(toys.write_folder(folder, family, model))

    @torch.no_grad()
    def score(ids: Tensor) -> Tensor:
        logits = model(ids, attention_mask=toys.mask_of(family.block_length, ids.shape[1]), use_cache=False).logits
        speaking = family.shift(logits)[0]
        speaking[:, toys.MASK] = -torch.inf
        return speaking.softmax(-1)

    return denoiser, score


def decoded(denoiser: Any, plan: Plan) -> list[int]:
    *_, finished = decode(denoiser, [PROMPT], plan)
    assert isinstance(finished, Finished)
    return finished.tokens[0]


def canvas(new: int) -> Tensor:
    return torch.tensor([PROMPT + [toys.MASK] * new])


def surest(score: Scorer, x: Tensor, inside: slice) -> tuple[Tensor, Tensor]:
    """Tokens (S,) and confidence (S,), minus infinity where nothing is hidden inside the slice."""
    confidence, token = score(x).max(-1)
    hidden = torch.zeros(x.shape[1], dtype=torch.bool)
    hidden[inside] = x[0, inside] == toys.MASK
    return token, confidence.masked_fill(~hidden, -torch.inf)


def show(x: Tensor, token: Tensor, which: Tensor) -> None:
    x[0, which] = token[which]


def test_llada_shows_the_surest_by_base_and_remainder(tmp_path: Path) -> None:
    denoiser, score = opened("llada", tmp_path)
    x = canvas(20)
    for start in (21, 31):
        for count in (4, 3, 3):  # ten tokens in three steps
            token, confidence = surest(score, x, slice(start, start + 10))
            show(x, token, confidence.topk(count).indices)
    plan = Plan(context="canvas", block_size=10, steps=3, max_new_tokens=20, quota=EvenSplit(), reveal=RevealTop())
    assert decoded(denoiser, plan) == x[0, 21:].tolist()


def test_dream_shows_a_share_that_grows_with_time(tmp_path: Path) -> None:
    denoiser, score = opened("dream", tmp_path)
    x, steps, eps = canvas(16), 6, 1e-3
    times = torch.linspace(1, eps, steps + 1, dtype=torch.float64)
    for i in range(steps):
        token, confidence = surest(score, x, slice(0, None))
        n = int(confidence.isfinite().sum())
        count = int(n * (1 - times[i + 1] / times[i])) if i < steps - 1 else n
        show(x, token, confidence.topk(count).indices)
    plan = Plan(context="canvas", block_size=16, steps=steps, max_new_tokens=16, quota=Proportional())
    assert decoded(denoiser, plan) == x[0, 21:].tolist()


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.9])
def test_sdar_shows_all_above_the_threshold_and_its_quota_at_least(threshold: float, tmp_path: Path) -> None:
    denoiser, score = opened("sdar", tmp_path)
    x = canvas(15)  # blocks of four on the grid: the first one begins with the prompt's last token
    for start in range(20, 36, 4):
        hidden = int((x[0, start : start + 4] == toys.MASK).sum())
        steps = min(2, hidden)
        for step in range(steps):
            token, confidence = surest(score, x[:, : start + 4], slice(start, start + 4))
            quota = hidden // steps + (step < hidden % steps)
            above = (confidence > threshold).nonzero()[:, 0]
            left = int(confidence.isfinite().sum())
            if left:
                show(x, token, above if len(above) >= quota else confidence.topk(min(quota, left)).indices)
    plan = Plan(
        context="kv", block_size=4, steps=2, max_new_tokens=15, quota=EvenSplit(), reveal=RevealAbove(threshold)
    )
    assert decoded(denoiser, plan) == x[0, 21:].tolist()


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.9])
def test_fast_dllm_v2_takes_the_first_of_a_block_from_the_commit(threshold: float, tmp_path: Path) -> None:
    denoiser, score = opened("fast_dllm_v2", tmp_path)
    x = canvas(27)
    for start in range(16, 48, 8):
        if x[0, start] == toys.MASK:
            x[0, start] = next_logits(x[:, :start]).argmax()
        while (x[0, start : start + 8] == toys.MASK).any():
            token, confidence = surest(score, x[:, : start + 8], slice(start, start + 8))
            above = confidence > threshold
            above[confidence.argmax()] = True
            show(x, token, above.nonzero()[:, 0])
    plan = Plan(context="kv", block_size=8, steps=8, max_new_tokens=27, quota=OneByOne(), reveal=RevealAbove(threshold))
    assert decoded(denoiser, plan) == x[0, 21:].tolist()


@torch.no_grad()
def next_logits(ids: Tensor) -> Tensor:
    """What the last state of Fast-dLLM v2 says of the token that follows ids (1, S), but for the mask: (V,)."""
    model = toys.hub_model(toys.FAMILIES["fast_dllm_v2"], seed=3)
    logits: Tensor = model(ids, attention_mask=toys.mask_of(8, ids.shape[1]), use_cache=False).logits[0, -1]
    logits[toys.MASK] = -torch.inf
    return logits


@pytest.mark.parametrize("name", ["sdar", "fast_dllm_v2"])
def test_cached_equals_uncached_where_attention_is_block_causal(name: str, tmp_path: Path) -> None:
    denoiser, _ = opened(name, tmp_path)
    size = denoiser.spec.block_length
    prompts = [PROMPT, PROMPT[: size + 1], PROMPT[:3]]
    runs = []
    for context in ("kv", "full"):
        plan = Plan(context=context, block_size=size, steps=size, max_new_tokens=4 * size, reveal=RevealAbove(0.2))
        *_, finished = decode(denoiser, prompts, plan)
        assert isinstance(finished, Finished)
        runs.append(finished.tokens)
        alone = [list(decode(denoiser, [prompt], plan))[-1].tokens[0] for prompt in prompts]  # type: ignore[union-attr]
        assert finished.tokens == alone
    assert runs[0] == runs[1]
    assert all(len(tokens) == 4 * size for tokens in runs[0])


@pytest.mark.parametrize("kind", ["dual", "prefix"])
@pytest.mark.parametrize("name", ["llada", "dream"])
def test_an_approximate_cache_decodes_and_in_one_step_a_block_exactly(name: str, kind: str, tmp_path: Path) -> None:
    denoiser, _ = opened(name, tmp_path)
    plans = [Plan(context=context, block_size=8, steps=1, max_new_tokens=24) for context in ("canvas", kind)]
    exact, cached = (decoded(denoiser, plan) for plan in plans)
    assert cached == exact
    many = decoded(denoiser, Plan(context=kind, block_size=8, steps=4, max_new_tokens=24))
    assert len(many) == 24
    assert toys.MASK not in many


@pytest.mark.parametrize("context", ["kv", "full"])
def test_what_is_banned_does_not_begin_a_block_either(context: str, tmp_path: Path) -> None:
    denoiser, _ = opened("fast_dllm_v2", tmp_path)
    plan = Plan(context=context, block_size=8, steps=8, max_new_tokens=11)
    begins = decoded(denoiser, plan)[3]  # of the block at 24
    banned = replace(plan, banned=(begins,))
    assert begins not in decoded(denoiser, banned)
    second = decoded(denoiser, replace(plan, max_new_tokens=3, banned=(begins,)))
    logits = next_logits(torch.tensor([PROMPT + second]))
    logits[begins] = -torch.inf
    assert decoded(denoiser, banned)[3] == int(logits.argmax())


def test_several_blocks_at_once_are_spoken_of_from_behind_as_well(tmp_path: Path) -> None:
    denoiser, _ = opened("fast_dllm_v2", tmp_path)
    model = toys.hub_model(toys.FAMILIES["fast_dllm_v2"], seed=3)
    ids = canvas(11)
    context = denoiser(ids[:, :16], denoiser.begin("kv", 1, 32), rows=NONE)[1]
    with torch.no_grad():
        told = model(ids, attention_mask=toys.mask_of(8, 32), use_cache=False).logits[:, :-1]
    mine, _ = denoiser(ids[:, 16:], context)
    torch.testing.assert_close(mine[:, 1:], told[:, 16:], rtol=0, atol=1e-4)
