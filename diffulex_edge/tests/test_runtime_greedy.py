"""`writes` says of a text what decoding would have said."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from diffulex_edge.diffusion.schedule import NoiseSchedule
from diffulex_edge.runtime.greedy import writes
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.sampler import Categorical
from diffulex_edge.tests.runtime_toys import Script, finish
from diffulex_edge.tests.toys import Copycat

CANVAS = Plan(context="canvas", max_new_tokens=5, block_size=5, steps=5)
MEMORY = Plan(context="memory", max_new_tokens=5, block_size=4, steps=4)


@dataclass(frozen=True)
class AtOnce:
    """All of a block in its first step."""

    def split(self, masked: int, steps: int, schedule: NoiseSchedule) -> list[int]:
        return [masked, *[0] * (steps - 1)]


@pytest.mark.parametrize("one_by_one", [CANVAS, MEMORY])
def test_what_decoding_one_token_a_step_writes_is_recognised_and_a_change_anywhere_is_not(one_by_one: Plan) -> None:
    script: Any = Script(seed=1)
    prompt = [5, 9, 7]
    plan = replace(one_by_one, steps=1, max_new_tokens=99, quota=AtOnce(), sampler=Categorical())  # have no say
    plan = replace(plan, block_size=3) if one_by_one is CANVAS else plan  # nor this, where blocks are not aligned
    text = torch.tensor([prompt + finish(script, [prompt], one_by_one).tokens[0]])
    assert writes(script, text, 3, plan).tolist() == [True]
    for place in range(3, 8):
        other = text.clone()
        other[0, place] = 4 if other[0, place] != 4 else 5
        assert writes(script, torch.cat((text, other)), 3, plan).tolist() == [True, False]


def test_it_stops_looking_when_every_row_is_refuted() -> None:
    copycat: Any = Copycat()
    right = torch.tensor([[5, 6, 7, 8, 9, 10]])
    plan = Plan(context="canvas")
    assert writes(copycat, right, 1, plan).tolist() == [True]
    looks = len(copycat.calls)
    copycat.calls.clear()
    assert writes(copycat, right.index_fill(1, torch.tensor([1]), 20), 1, plan).tolist() == [False]
    assert len(copycat.calls) < looks


def test_nothing_is_always_what_it_writes() -> None:
    copycat: Any = Copycat()
    assert writes(copycat, torch.tensor([[5, 6]]), 2, Plan(context="canvas")).tolist() == [True]
