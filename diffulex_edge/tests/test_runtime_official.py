"""The makers' own rules: the plan of each family, and that it decodes as a plain loop over the transformers class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import diffulex_edge
from diffulex_edge.runtime.confidence import AsDrawn, negative_entropy
from diffulex_edge.runtime.guidance import Guided
from diffulex_edge.runtime.official import official_plan
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.quota import EvenSplit, OneByOne, Proportional
from diffulex_edge.runtime.reveal import RevealAbove, RevealInOrder, RevealTop
from diffulex_edge.runtime.sampler import Categorical, Greedy
from diffulex_edge.runtime.sub_blocks import SubBlocks
from diffulex_edge.tests import family_toys, toys
from diffulex_edge.tests.test_runtime_families import canvas, decoded, next_logits, opened, show, surest

PLANS = {
    "llada": Plan(context="canvas", quota=EvenSplit(), reveal=RevealTop(), block_size=32, steps=32, max_new_tokens=40),
    "dream": Plan(
        context="canvas",
        quota=Proportional(),
        reveal=RevealTop(score=negative_entropy),
        block_size=40,
        steps=40,
        max_new_tokens=40,
    ),
    "sdar": Plan(context="kv", quota=EvenSplit(), reveal=RevealAbove(0.85), block_size=4, steps=4, max_new_tokens=40),
    "fast_dllm_v2": Plan(
        context="kv",
        quota=OneByOne(),
        reveal=SubBlocks(RevealAbove(0.9), 8),
        block_size=8,
        steps=8,
        max_new_tokens=40,
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_each_family_has_the_plan_of_its_makers(name: str, tmp_path: Path) -> None:
    denoiser, _ = opened(name, tmp_path)
    assert diffulex_edge.official_plan(denoiser, max_new_tokens=40) == PLANS[name]
    assert official_plan(Guided(denoiser, 1.0), max_new_tokens=40) == PLANS[name]


def test_a_wish_overrules_the_makers_and_none_is_no_wish(tmp_path: Path) -> None:
    denoiser, _ = opened("llada", tmp_path)
    plan = official_plan(denoiser, steps=7, reveal=RevealInOrder(), block_size=None, seed=3)
    assert (plan.steps, plan.reveal, plan.block_size, plan.seed) == (7, RevealInOrder(), 32, 3)


def test_dream_measures_entropy_on_what_it_draws_from(tmp_path: Path) -> None:
    denoiser, _ = opened("dream", tmp_path)
    sampler = Categorical(temperature=0.2, top_p=0.95)
    assert official_plan(denoiser, sampler=sampler).reveal == RevealTop(score=AsDrawn(negative_entropy, sampler))
    assert official_plan(denoiser, max_new_tokens=0).sampler == Greedy()


@pytest.mark.parametrize("make", [toys.eco, toys.backup])
def test_what_is_of_no_such_family_decodes_as_it_was_trained(make: Any) -> None:
    assert official_plan(make(), max_new_tokens=9) == plan_for(make().spec, max_new_tokens=9)


def test_llada_shows_the_surest_of_its_block_one_by_one(tmp_path: Path) -> None:
    denoiser, score = opened("llada", tmp_path)
    x = canvas(40)
    for inside in [slice(21, 53)] * 32 + [slice(53, 61)] * 8:
        token, confidence = surest(score, x, inside)
        show(x, token, confidence.argmax()[None])
    assert decoded(denoiser, official_plan(denoiser, max_new_tokens=40)) == x[0, 21:].tolist()


def test_dream_shows_the_lowest_entropy_of_the_answer(tmp_path: Path) -> None:
    denoiser, score = opened("dream", tmp_path)
    x, steps = canvas(16), 16
    times = torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64)
    for i in range(steps):
        hidden = x[0] == family_toys.MASK
        n, chances = int(hidden.sum()), score(x)
        lowest = torch.special.entr(chances).sum(-1).masked_fill(~hidden, torch.inf)
        count = int(n * (1 - times[i + 1] / times[i])) if i < steps - 1 else n
        show(x, chances.argmax(-1), (-lowest).topk(count).indices)
    assert decoded(denoiser, official_plan(denoiser, max_new_tokens=16)) == x[0, 21:].tolist()


def test_sdar_shows_all_above_its_threshold_and_at_least_one(tmp_path: Path) -> None:
    denoiser, score = opened("sdar", tmp_path)
    x = canvas(15)
    for start in range(20, 36, 4):
        while (x[0, start : start + 4] == family_toys.MASK).any():
            token, confidence = surest(score, x[:, : start + 4], slice(start, start + 4))
            above = confidence > 0.85
            above[confidence.argmax()] = True
            show(x, token, above.nonzero()[:, 0])
    assert decoded(denoiser, official_plan(denoiser, max_new_tokens=15)) == x[0, 21:].tolist()


def test_fast_dllm_v2_shows_all_above_its_threshold_after_the_first_of_the_commit(tmp_path: Path) -> None:
    denoiser, score = opened("fast_dllm_v2", tmp_path)
    x = canvas(27)
    for start in range(16, 48, 8):
        if x[0, start] == family_toys.MASK:
            x[0, start] = next_logits(x[:, :start]).argmax()
        while (x[0, start : start + 8] == family_toys.MASK).any():
            token, confidence = surest(score, x[:, : start + 8], slice(start, start + 8))
            above = confidence > 0.9
            above[confidence.argmax()] = True
            show(x, token, above.nonzero()[:, 0])
    assert decoded(denoiser, official_plan(denoiser, max_new_tokens=27)) == x[0, 21:].tolist()
