"""The loop over the real denoisers at toy size: batches, every context, and the cache against full recomputation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.depth import LinearDepth
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.reveal import RevealAbove
from diffulex_edge.tests.runtime_toys import finish
from diffulex_edge.tests.toys import backup, eco

PLAN = Plan(max_new_tokens=11, block_size=4, steps=3)
MODELS: list[tuple[Any, dict[str, Any], str]] = [
    (eco, {}, "memory"),
    (eco, {}, "full"),
    (eco, {}, "canvas"),
    (eco, {"timesteps": 8}, "memory"),
    (backup, {}, "full"),
    (backup, {}, "canvas"),
    (backup, {"block_length": 4}, "kv"),
]


@pytest.mark.parametrize(("make", "changes", "context"), MODELS)
def test_a_batch_of_different_lengths_decodes_as_its_rows_do_alone(
    make: Any, changes: dict[str, Any], context: str
) -> None:
    denoiser: Denoiser = make(**changes)
    prompts = [[5, 6, 7, 8, 9], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], [30]]
    for plan in (
        replace(PLAN, context=context),
        replace(PLAN, context=context, reveal=RevealAbove(0.5), stop_ids=(2, 40)),
    ):
        together = finish(denoiser, prompts, plan)
        assert together.tokens == [finish(denoiser, [prompt], plan).tokens[0] for prompt in prompts]


@pytest.mark.parametrize(("make", "changes", "context"), MODELS)
def test_at_progressive_depth_rows_that_take_as_many_steps_decode_as_alone(
    make: Any, changes: dict[str, Any], context: str
) -> None:
    denoiser: Denoiser = make(**changes)
    prompts = [[5, 6, 7, 8, 9], [30], [11, 12, 13, 14, 15, 16, 17, 18, 19]]  # each leaves three masks in its block
    plan = replace(PLAN, context=context, depth=LinearDepth(1))
    together = finish(denoiser, prompts, plan)
    assert together.tokens == [finish(denoiser, [prompt], plan).tokens[0] for prompt in prompts]


@pytest.mark.parametrize(("make", "changes", "context"), MODELS)
def test_depth_and_time_reach_the_model(make: Any, changes: dict[str, Any], context: str) -> None:
    plan = replace(PLAN, context=context, steps=4)
    whole, shallow = (finish(make(**changes), [[5, 6]], replace(plan, depth=LinearDepth(n))) for n in (0, 1))
    assert whole.forwards == shallow.forwards
    assert whole.tokens != shallow.tokens


def test_decoding_with_the_cache_equals_decoding_without_it() -> None:
    denoiser = backup(block_length=4)
    for prompt in ([5, 6, 7, 8], [5, 6, 7, 8, 9, 10, 11, 12]):
        plan = replace(PLAN, max_new_tokens=12)
        cached = finish(denoiser, [prompt], replace(plan, context="kv"))
        assert cached.tokens == finish(denoiser, [prompt], replace(plan, context="full")).tokens


def test_a_canvas_sees_what_stands_behind_the_gap_and_a_prefix_does_not() -> None:
    denoiser, differ = eco(), {"canvas": 0, "full": 0}
    for right in range(10, 40, 3):
        for context in differ:
            plan = Plan(block_size=2, steps=2, context=context)
            one, other = (finish(denoiser, [[5, 6, 3, 3, token, 9]], plan).tokens for token in (right, right + 1))
            differ[context] += one != other
    assert differ["full"] == 0
    assert differ["canvas"] > 0
