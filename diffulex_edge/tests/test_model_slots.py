"""Latent self-conditioning: slots go from one reverse step to the next, and no further."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from diffulex_edge.model.base import NONE
from diffulex_edge.model.eco_hybrid import EcoHybrid
from diffulex_edge.runtime.decode import decode
from diffulex_edge.runtime.guidance import Guided
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.tests import toys
from diffulex_edge.train.objective import Moment, Objective, ObjectiveConfig, join

PLAN = Plan(context="memory", block_size=8, steps=4, max_new_tokens=16)


def carrying() -> Any:
    return toys.eco(latent_self_cond=True)


def after_a_step(model: Any, rows: int = 2) -> tuple[Any, Any]:
    """The context behind 16 tokens, and the same after a reverse step over a block of masks."""
    context = model.begin("memory", rows, 32)
    for block in toys.ids(rows, 16).split(8, 1):
        _, context = model(block, context, rows=NONE)
    _, seen = model(torch.full((rows, 8), 3), context)
    return context, context.refresh(seen)


def tokens(model: Any, prompts: list[list[int]], plan: Plan = PLAN) -> list[list[int]]:
    *_, finished = decode(model, prompts, plan)
    return finished.tokens  # type: ignore[union-attr]


def test_a_new_model_adds_nothing_and_a_trained_one_does() -> None:
    block = toys.ids(2, 8, seed=3)
    for model, moves in ((EcoHybrid(replace(toys.ECO, latent_self_cond=True)), False), (carrying(), True)):
        cold, warm = after_a_step(model)
        assert ((model(block, cold)[0] - model(block, warm)[0]).abs().max() > 1e-3) == moves


def test_a_model_that_does_not_carry_keeps_its_context() -> None:
    cold, same = after_a_step(toys.eco())
    assert same is cold


def test_what_is_remembered_does_not_depend_on_the_steps_before_and_the_next_block_starts_afresh() -> None:
    model, block = carrying(), toys.ids(2, 8, seed=3)
    a, b = (model(block, context, rows=NONE)[1] for context in after_a_step(model))
    assert b.slots is None
    for mine, theirs in zip(a.layers, b.layers, strict=True):
        assert torch.equal(mine.bank, theirs.bank) and torch.equal(mine.halo, theirs.halo)
    assert torch.equal(model(block, a)[0], model(block, b)[0])


def test_a_decoded_block_does_not_know_how_the_one_before_it_came_about() -> None:
    model, prompt = carrying(), [*range(5, 13)]
    (both,) = tokens(model, [prompt])
    (second,) = tokens(model, [prompt + both[:8]], replace(PLAN, max_new_tokens=8))
    assert both[8:] == second


def test_decoding_carries_slots_from_step_to_step() -> None:
    """The same weights, but for what is added: other tokens. In one step there is nothing to carry."""
    model, silent, prompts = carrying(), carrying(), [[*range(5, 13)], [*range(20, 25)], [*range(30, 47)]]
    silent.warm.norm.weight.zero_()
    assert tokens(model, prompts) != tokens(silent, prompts)
    at_once = replace(PLAN, steps=1)
    assert tokens(model, prompts, at_once) == tokens(silent, prompts, at_once)


def test_a_batch_decodes_as_its_rows_alone_do() -> None:
    model, prompts = carrying(), [[*range(5, 13)], [*range(20, 25)], [*range(30, 47)]]
    assert tokens(model, prompts) == [tokens(model, [prompt])[0] for prompt in prompts]


def test_rows_take_their_slots_along() -> None:
    model, block = carrying(), toys.ids(1, 8, seed=3).expand(2, -1)
    _, warm = after_a_step(model)
    swapped, _ = model(block, warm.take(torch.tensor([1, 0])))
    torch.testing.assert_close(swapped.flip(0), model(block, warm)[0])


def test_guidance_carries_the_slots_of_both_halves() -> None:
    model, silent = carrying(), carrying()
    silent.warm.norm.weight.zero_()
    plain, guided = tokens(Guided(silent, 1.0), [[*range(5, 13)]]), tokens(Guided(model, 1.0), [[*range(5, 13)]])
    assert plain != guided


def test_a_layer_is_asked_once_a_block_what_it_remembers() -> None:
    model = carrying()
    with torch.no_grad():
        cold, warm = after_a_step(model)
        assert all(a is b for a, b in zip(cold.recall(model.layers), warm.recall(model.layers), strict=True))


def test_half_of_the_frozen_steps_are_trained_as_a_second_step() -> None:
    """And the first is not trained through: its slots come without gradients."""
    model, x = carrying().requires_grad_(True), toys.ids(2, 8)
    objective = Objective(ObjectiveConfig(), None, model.spec)
    context = join([model.begin("memory", 2, 8)])
    warm = 0
    for seed in range(200):
        g = torch.Generator().manual_seed(seed)
        noised = objective._noise(x, torch.tensor([0.5, 1.0]), 3, g)
        after = objective._after_a_step(model, noised, context, None, g)
        assert after.slots is None or not after.slots.requires_grad
        warm += after.slots is not None
    assert 70 < warm < 130


@pytest.mark.parametrize("changes", [{}, {"latent_self_cond": True}])
def test_a_model_that_does_not_carry_draws_no_more_than_before(changes: dict[str, Any]) -> None:
    """A resumed run of an older program goes on with the same random numbers."""
    model, g = toys.eco(**changes), torch.Generator().manual_seed(0)
    objective, before = Objective(ObjectiveConfig(), None, model.spec), g.get_state()
    context = model.begin("memory", 2, 8)
    noised = objective._noise(toys.ids(2, 8), torch.tensor([0.5, 1.0]), 3, torch.Generator().manual_seed(1))
    objective._after_a_step(model, noised, context, None, g)
    assert torch.equal(before, g.get_state()) == (not changes)


def test_training_learns_to_use_the_step_before() -> None:
    model = EcoHybrid(replace(toys.ECO, latent_self_cond=True))
    config = ObjectiveConfig(full_share=0, block_share=0, frozen_share=1, full_only=0, block_sizes=(8,), shallow=0)
    objective, optimizer = Objective(config, None, model.spec), torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(8):
        optimizer.zero_grad()
        parts = objective(model, toys.ids(4, 32), Moment(0.5, torch.Generator().manual_seed(step)))
        torch.stack([loss for loss, _ in parts]).sum().backward()
        optimizer.step()
    cold, warm = after_a_step(model)
    assert (model(toys.ids(2, 8), cold)[0] - model(toys.ids(2, 8), warm)[0]).abs().max() > 0
