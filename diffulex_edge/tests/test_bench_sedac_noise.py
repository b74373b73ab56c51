"""The seed's comparison, against what can be worked out: a normal tail, and correlation that undoes averaging."""

from __future__ import annotations

import math

import pytest

from diffulex_edge.bench.sedac_noise import EASY, HARD, SIGMA, noise_resilience


def test_one_layer_lets_through_the_normal_tail_whatever_the_correlation() -> None:
    tail = 0.5 * math.erfc((HARD - EASY) / SIGMA / math.sqrt(2))  # 0.0912
    for row in noise_resilience(60_000, correlations=(0.0, 0.9)):
        assert row["hard_exits"]["last layer alone"] == pytest.approx(tail, abs=0.006)


def test_gathering_helps_while_errors_differ_and_not_once_they_are_the_same() -> None:
    apart, together = noise_resilience(60_000, correlations=(0.0, 1.0))
    gathered = "gathered, at the last layer"
    assert apart["hard_exits"][gathered] < 0.3 * apart["hard_exits"]["last layer alone"]
    assert together["hard_exits"][gathered] == pytest.approx(together["hard_exits"]["last layer alone"], abs=0.01)


def test_exiting_at_the_first_crossing_gives_part_of_that_back() -> None:
    (row,) = noise_resilience(60_000, correlations=(0.0,))
    assert row["hard_exits"]["cascade, at any layer"] > row["hard_exits"]["gathered, at the last layer"]
