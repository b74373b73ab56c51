"""Schedules at their limits, against the tables, and as true derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffulex_edge.diffusion.schedule import SCHEDULES, Cosine, Linear, find_schedule
from diffulex_edge.errors import UsageError


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_nothing_is_masked_at_zero_and_everything_at_one(schedule) -> None:
    rates = schedule.mask_rate(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(rates, torch.tensor([0.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_slope_is_the_derivative_of_the_mask_rate(schedule) -> None:
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    numeric = (schedule.mask_rate(t + 1e-6) - schedule.mask_rate(t - 1e-6)) / 2e-6
    torch.testing.assert_close(schedule.slope(t), numeric, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_time_of_a_share_is_when_that_share_is_masked(schedule) -> None:
    share = torch.linspace(0, 1, 51)
    torch.testing.assert_close(schedule.mask_rate(schedule.time(share)), share)
    assert schedule.time(torch.tensor([0.0, 1.0])).tolist() == [0, 1]


def test_a_schedule_is_found_by_its_name_alone() -> None:
    assert [find_schedule(name) for name in SCHEDULES] == list(SCHEDULES.values())
    with pytest.raises(UsageError, match="'sine' is not one of linear, cosine"):
        find_schedule("sine")


def test_the_cosine_is_maskgits_not_mdlms() -> None:
    assert float(Cosine().mask_rate(torch.tensor(0.5))) == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize(
    ("steps", "length", "table"),
    [
        (8, 32, [31, 29, 26, 22, 17, 12, 6, 0]),
        (4, 32, [29, 22, 12, 0]),
        (12, 32, [31, 30, 29, 27, 25, 22, 19, 16, 12, 8, 4, 0]),
        (6, 64, [61, 55, 45, 32, 16, 0]),
    ],
)
def test_maskgits_table_of_tokens_still_masked(steps: int, length: int, table: list[int]) -> None:
    assert [Cosine().still_masked(i, steps, length) for i in range(steps)] == table


def test_the_linear_schedule_reveals_equal_shares() -> None:
    assert [Linear().still_masked(i, 4, 10) for i in range(4)] == [7, 5, 2, 0]


@given(st.integers(1, 64), st.integers(1, 512), st.sampled_from(sorted(SCHEDULES)))
def test_fewer_stay_masked_at_each_step_and_none_after_the_last(steps: int, length: int, name: str) -> None:
    counts = [SCHEDULES[name].still_masked(i, steps, length) for i in range(steps)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0 and counts[0] <= length
