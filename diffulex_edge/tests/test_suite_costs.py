"""The cost model against values worked out by hand from seed 000's sums, and against calls that were counted."""

from __future__ import annotations

import pytest
import torch

from diffulex_edge.runtime.decode import decode
from diffulex_edge.runtime.plan import Plan, mode_plan
from diffulex_edge.suite.costs import token_evaluations
from diffulex_edge.tests import toys


@pytest.mark.parametrize(
    ("steps", "new", "prompt", "block", "frozen"),
    [(8, 128, 32, 3584, 1184), (8, 256, 32, 11264, 2336), (8, 512, 32, 38912, 4640), (8, 1024, 32, 143360, 9248)],
)
def test_the_seeds_numbers_in_one_unit(steps: int, new: int, prompt: int, block: int, frozen: int) -> None:
    said = {"new": new, "prompt": prompt, "block": 32, "steps": steps}
    assert token_evaluations("block", **said) == block
    assert token_evaluations("block_frozen", **said) == frozen
    assert token_evaluations("full", **said) == steps * (new // 32) * (prompt + new)


@pytest.mark.parametrize("mode", ["full", "block", "block_frozen"])
def test_decoding_puts_as_many_tokens_through_the_model_as_the_cost_model_says(mode: str) -> None:
    model, seen = toys.eco(), []
    model.layers[0].register_forward_pre_hook(lambda layer, given: seen.append(given[0].tokens.shape[1]))
    steps = 12 if mode == "full" else 4
    plan = mode_plan(mode, Plan(max_new_tokens=24, block_size=8, steps=steps, banned=(2,)), model.spec)
    list(decode(model, torch.randint(4, 48, (1, 8)), plan))
    expected = token_evaluations(mode, new=24, prompt=8, block=8, steps=4)
    assert sum(seen) == expected - (8 if mode == "block_frozen" else 0)  # the last block is not remembered
