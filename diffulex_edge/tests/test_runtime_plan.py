"""Plans: quotas and depths against tables worked out by hand, steps, and nonsense refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffulex_edge.diffusion.schedule import Cosine, Linear
from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.depth import ConstantDepth, LinearDepth, SandwichDepth
from diffulex_edge.runtime.plan import MODES, Plan, mode_plan, plan_for
from diffulex_edge.runtime.quota import BySchedule, EvenSplit, OneByOne, Proportional, Quota
from diffulex_edge.tests.runtime_toys import MASK, Script, finish

SPEC = Script(n_layers=10).spec
QUOTAS = [BySchedule(), EvenSplit(), Proportional(), Proportional(Fraction(0)), OneByOne()]


@pytest.mark.parametrize(
    ("steps", "masked", "still"),
    [
        (8, 32, [31, 29, 26, 22, 17, 12, 6, 0]),
        (4, 32, [29, 22, 12, 0]),
        (12, 32, [31, 30, 29, 27, 25, 22, 19, 16, 12, 8, 4, 0]),
        (6, 64, [61, 55, 45, 32, 16, 0]),
    ],
)
def test_the_cosine_schedule_reveals_as_maskgit_does(steps: int, masked: int, still: list[int]) -> None:
    shown = accumulate(BySchedule().split(masked, steps, Cosine()))
    assert [masked - n for n in shown] == still


def test_the_linear_schedule_lets_equal_shares_go() -> None:
    assert BySchedule().split(10, 4, Linear()) == [3, 2, 3, 2]
    assert BySchedule().split(32, 4, Linear()) == [8] * 4


def test_llada_gives_the_remainder_to_the_first_steps() -> None:
    assert EvenSplit().split(10, 4, Linear()) == [3, 3, 2, 2]
    assert EvenSplit().split(3, 3, Linear()) == [1, 1, 1]


def test_dreams_quota_may_be_nothing_and_its_last_step_takes_the_rest() -> None:
    # 12 * (1 - s/t) is 0.999 at first: nothing. Then 12 * 0.999 / (12 - 0.999) = 1.09.
    assert Proportional().split(12, 12, Linear()) == [0] + [1] * 10 + [2]
    assert Proportional(Fraction(0)).split(10, 4, Linear()) == [2, 2, 3, 3]


def test_one_by_one_leaves_the_rest_to_the_last_step() -> None:
    assert OneByOne().split(32, 4, Linear()) == [1, 1, 1, 29]


@given(st.sampled_from(QUOTAS), st.integers(1, 200), st.integers(1, 64), st.sampled_from([Linear(), Cosine()]))
def test_every_quota_adds_up(quota: Quota, masked: int, steps: int, schedule: Linear | Cosine) -> None:
    steps = min(steps, masked)
    shares = quota.split(masked, steps, schedule)
    assert len(shares) == steps
    assert sum(shares) == masked
    assert min(shares) >= 0
    assert all(type(share) is int for share in shares)


@pytest.mark.parametrize("quota", [BySchedule(), EvenSplit(), OneByOne()])
def test_no_step_of_these_is_spent_on_nothing(quota: Quota) -> None:
    for masked in range(1, 70):
        for steps in range(1, masked + 1):
            for schedule in (Linear(), Cosine()):
                assert min(quota.split(masked, steps, schedule)) >= 1, (masked, steps, schedule)


@pytest.mark.parametrize(
    ("steps", "least", "layers", "table"),
    [
        (8, 3, 10, [3, 4, 5, 6, 7, 8, 9, 10]),
        (8, 2, 10, [2, 4, 5, 6, 7, 8, 9, 10]),
        (8, 4, 10, [4, 5, 6, 7, 8, 9, 10, 10]),
        (12, 3, 10, [3, 4, 5, 5, 6, 7, 7, 8, 9, 9, 10, 10]),
        (4, 3, 10, [3, 6, 8, 10]),
        (6, 2, 8, [2, 4, 5, 6, 7, 8]),
        (12, 2, 8, [2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8]),
        (12, 4, 10, [4, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10]),
    ],
)
def test_linear_depth_is_the_seeds_formula_in_integers(steps: int, least: int, layers: int, table: list[int]) -> None:
    assert [LinearDepth(least).layers(i, steps, layers) for i in range(steps)] == table


def test_a_single_step_runs_at_full_depth() -> None:
    assert LinearDepth(3).layers(0, 1, 10) == 10


def test_depth_zero_is_off() -> None:
    for depth in (LinearDepth(), SandwichDepth(), ConstantDepth()):
        assert [depth.layers(i, 8, 10) for i in range(8)] == [10] * 8


def test_the_sandwich_is_shallow_at_both_ends() -> None:
    assert [SandwichDepth(3).layers(i, 8, 10) for i in range(8)] == [3, 3, 10, 10, 10, 10, 3, 3]
    assert [SandwichDepth(3).layers(i, 3, 10) for i in range(3)] == [10, 10, 10]


def test_a_constant_depth_stays() -> None:
    assert [ConstantDepth(4).layers(i, 5, 10) for i in range(5)] == [4] * 5


def test_a_depth_beyond_the_model_is_refused() -> None:
    for depth in (LinearDepth(11), SandwichDepth(11), ConstantDepth(11)):
        with pytest.raises(UsageError, match="11 is more than the model's 10 layers"):
            depth.layers(0, 4, 10)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 1.5),
        ("steps", float("nan")),
        ("block_size", 0),
        ("block_size", -32),
        ("max_new_tokens", -1),
        ("seed", -1),
        ("stop_ids", (2, -1)),
        ("banned", (0.5,)),
    ],
)
def test_nonsense_is_refused_with_its_value(field: str, value: object) -> None:
    shown = str(value[-1] if isinstance(value, tuple) else value)
    with pytest.raises(UsageError, match=field) as refused:
        Plan(**{field: value})  # type: ignore[arg-type]
    assert shown in str(refused.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearDepth(-1),
        lambda: SandwichDepth(2, one_in=1),
        lambda: ConstantDepth(-2),
        lambda: Proportional(Fraction(1)),
    ],
)
def test_nonsense_in_the_parts_is_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]


def test_time_runs_from_one_and_the_last_step_is_followed_by_the_fallback() -> None:
    steps = list(Plan(steps=4).reverse_steps(torch.tensor([8]), SPEC))
    assert [step.t.item() for step in steps] == [1.0, 0.75, 0.5, 0.25, 0.25]
    assert [step.quota.tolist() for step in steps] == [[2], [2], [2], [2], [0]]
    assert [step.last.item() for step in steps] == [False, False, False, True, True]
    assert [step.fallback for step in steps] == [False] * 4 + [True]
    assert [step.depth for step in steps] == [10] * 5


def test_a_block_never_takes_more_steps_than_it_has_masks() -> None:
    steps = list(Plan(steps=12, depth=LinearDepth(2)).reverse_steps(torch.tensor([3]), SPEC))
    assert [step.steps for step in steps] == [3] * 4
    assert [step.depth for step in steps] == [2, 6, 10, 10]
    assert [step.t.item() for step in steps[:3]] == pytest.approx([1, 2 / 3, 1 / 3])


def test_the_steps_of_a_row_do_not_depend_on_the_other_rows() -> None:
    together = list(Plan(steps=6, schedule=Cosine()).reverse_steps(torch.tensor([3, 0, 20]), SPEC))
    for row, masked in ((0, 3), (2, 20)):
        alone = list(Plan(steps=6, schedule=Cosine()).reverse_steps(torch.tensor([masked]), SPEC))[:-1]
        for mine, one in zip(together, alone, strict=False):
            assert mine.quota[row] == one.quota[0]
            assert mine.t[row] == one.t[0]
            assert mine.last[row] == one.last[0]


def test_a_plan_is_as_the_model_was_trained_and_a_wish_overrules_it() -> None:
    assert plan_for(SPEC) == Plan()
    trained = replace(SPEC, mask_schedule="cosine", sample_steps=5)
    assert plan_for(trained) == Plan(schedule=Cosine(), steps=5)
    assert plan_for(trained, steps=9, seed=3, block_size=None) == Plan(schedule=Cosine(), steps=9, seed=3)
    assert plan_for(trained, schedule=Linear()).schedule == Linear()
    with pytest.raises(UsageError, match="'sine' is not one of"):
        plan_for(replace(SPEC, mask_schedule="sine"))


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.integers(1, 9),
    st.sampled_from([LinearDepth(2), SandwichDepth(3), ConstantDepth(4), LinearDepth()]),
)
def test_no_row_of_a_batch_runs_shallower_than_alone_and_no_deeper_than_another_needs(
    masked: list[int], steps: int, depth: LinearDepth | SandwichDepth | ConstantDepth
) -> None:
    def depths(*counts: int) -> list[int]:
        *found, fallback = Plan(steps=steps, depth=depth).reverse_steps(torch.tensor(counts), SPEC)
        assert fallback.depth == SPEC.n_layers
        return [step.depth for step in found]

    together, alone = depths(*masked), [depths(n) for n in masked]
    assert together == [max(own[i] for own in alone if i < len(own)) for i in range(len(together))]
    if len({len(own) for own in alone if own}) == 1 or isinstance(depth, ConstantDepth):
        assert all(own == together[: len(own)] for own in alone)


def test_modes_differ_in_context_and_block_only() -> None:
    plan = Plan(max_new_tokens=100, steps=7, seed=3)
    kinds = {"kv", "canvas", "dual", "prefix"}
    assert set(MODES) == {"full", "block", "block_frozen", *kinds}
    assert {mode_plan(kind, plan).context for kind in kinds} == kinds
    full, block, frozen = (mode_plan(mode, plan) for mode in ("full", "block", "block_frozen"))
    assert (full.context, full.block_size) == ("full", 100)
    assert (block.context, block.block_size) == ("full", 32)
    assert (frozen.context, frozen.block_size) == ("memory", 32)
    assert {(p.steps, p.seed, p.max_new_tokens) for p in (full, block, frozen)} == {(7, 3, 100)}
    with pytest.raises(UsageError, match="'fast' is not one of full, block, block_frozen"):
        mode_plan("fast")


def test_without_a_plan_a_model_is_decoded_as_it_was_trained() -> None:
    denoiser = Script()
    denoiser.spec = replace(denoiser.spec, sample_steps=3, mask_schedule="cosine")
    assert finish(denoiser, [[MASK] * 8], None).forwards == 3
    hidden = [int(rows.sum()) for *_, rows in denoiser.looked]
    assert hidden == [8, 6, 4], "floor(8 cos(pi / 6)), floor(8 cos(pi / 3))"
