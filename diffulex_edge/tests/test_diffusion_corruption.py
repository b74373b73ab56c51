"""The forward process: rates, strata, exact counts, and that no row is left whole in training."""

from __future__ import annotations

import pytest
import torch

from diffulex_edge.diffusion.corruption import corrupt, discrete_times, exact_count, permuted_strata
from diffulex_edge.diffusion.schedule import Cosine, Linear

MASK = 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_stratum_is_drawn_once_and_no_row_is_bound_to_one() -> None:
    draws = torch.stack([permuted_strata(8, seeded(s), eps=0.0) for s in range(64)])  # (64, 8)
    strata = (draws * 8).floor().long()
    assert (strata.sort(1).values == torch.arange(8)).all()
    assert all(len(strata[:, row].unique()) > 4 for row in range(8))


def test_times_stay_above_eps() -> None:
    assert permuted_strata(1000, seeded(), eps=0.01).min() >= 0.01


def test_discrete_times_are_the_seeds_grid_and_never_zero() -> None:
    times = discrete_times(3200, 32, seeded())
    assert set((times * 32).round().int().tolist()) == set(range(1, 33))


@pytest.mark.parametrize("schedule", [Linear(), Cosine()])
def test_tokens_are_masked_at_the_schedules_rate(schedule) -> None:
    x = torch.full((8, 5000), 9)
    t = torch.linspace(0.2, 0.9, 8)
    noised = corrupt(x, schedule, MASK, t=t, generator=seeded())
    torch.testing.assert_close(noised.masked.float().mean(1), schedule.mask_rate(t), atol=0.03, rtol=0)
    assert (noised.xt[noised.masked] == MASK).all() and (noised.xt[~noised.masked] == 9).all()


def test_no_row_is_left_whole_in_training() -> None:
    noised = corrupt(torch.full((500, 4), 9), Linear(), MASK, t=torch.full((500,), 1e-6), generator=seeded())
    assert (noised.masked.sum(1) == 1).all()
    assert len(noised.masked.int().argmax(1).unique()) == 4


def test_everything_is_masked_at_one() -> None:
    assert corrupt(torch.full((2, 9), 9), Linear(), MASK, t=torch.ones(2), generator=seeded()).masked.all()


def test_exact_count_masks_that_many_and_every_position_alike() -> None:
    counts = torch.arange(1, 9).repeat(400)
    noised = exact_count(torch.full((len(counts), 8), 9), counts, MASK, seeded())
    assert (noised.masked.sum(1) == counts).all()
    torch.testing.assert_close(noised.masked.float().mean(0), torch.full((8,), 4.5 / 8), atol=0.04, rtol=0)
    torch.testing.assert_close(noised.t, counts / 8)


def test_the_same_generator_gives_the_same_noise() -> None:
    x = torch.full((4, 16), 9)
    a, b = (corrupt(x, Linear(), MASK, t=torch.full((4,), 0.5), generator=seeded(5)) for _ in range(2))
    assert torch.equal(a.xt, b.xt)
