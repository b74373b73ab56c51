"""Samplers: exact distributions, ties, bans, and chance that comes from the seed alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.runtime.sampler import Categorical, Greedy, Guess, Sampler, ban, choose_sampler

SAMPLERS: list[Sampler] = [
    Greedy(),
    Categorical(),
    Categorical(temperature=0.3, top_k=2),
    Categorical(temperature=3.0, top_p=0.5),
]


def draw(sampler: Sampler, logits: Tensor, seed: int = 0) -> Guess:
    hidden = torch.ones(1, len(logits), dtype=torch.bool)
    return sampler(logits, hidden, torch.Generator().manual_seed(seed))


def frequencies(sampler: Sampler, logits: Tensor, n: int = 40_000) -> Tensor:
    tokens = draw(sampler, logits.expand(n, -1)).token
    return torch.bincount(tokens, minlength=len(logits)) / n


def test_greedy_takes_the_smallest_of_equals() -> None:
    assert draw(Greedy(), torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])).token.tolist() == [1, 0]


@pytest.mark.parametrize("size", [1, 128, 129, 1000])
def test_greedy_takes_the_first_of_the_highest_among_any_number(size: int) -> None:
    logits = torch.randint(0, size // 3 + 1, (64, size), generator=torch.Generator().manual_seed(0)).float()
    logits[0] = -torch.inf
    logits[0, size // 2] = 0.0
    assert draw(Greedy(), logits).token.tolist() == [row.index(max(row)) for row in logits.tolist()]


def test_a_temperature_divides_the_logits() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    for temperature in (0.5, 1.0, 2.0):
        wanted = (logits / temperature).softmax(0)
        error = (wanted * (1 - wanted) / 40_000).sqrt()
        assert ((frequencies(Categorical(temperature=temperature), logits) - wanted).abs() <= 5 * error).all()


def test_top_k_keeps_k_tokens() -> None:
    seen = frequencies(Categorical(top_k=2), torch.tensor([1.0, 3.0, 0.0, 2.0]))
    assert seen[0] == seen[2] == 0
    assert seen[1] == pytest.approx(torch.tensor([3.0, 2.0]).softmax(0)[0].item(), abs=0.02)


def test_the_nucleus_holds_the_token_that_crosses_its_edge() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    for top_p, kept in ((0.4, 1), (0.6, 2), (0.9, 3), (1.0, 4)):
        assert (frequencies(Categorical(top_p=top_p), logits) > 0).sum() == kept, top_p


@pytest.mark.parametrize("top_p", [0.04, 0.3, 0.6, 0.95])
def test_a_nucleus_is_drawn_from_in_proportion_whether_it_is_often_missed_or_not(top_p: float) -> None:
    logits = torch.randn(60, generator=torch.Generator().manual_seed(3))
    values, order = logits.softmax(0).sort(descending=True)
    values[values.cumsum(0) - values >= top_p] = 0
    wanted = torch.zeros(60).scatter(0, order, values / values.sum())
    error = (wanted * (1 - wanted) / 40_000).sqrt()
    assert ((frequencies(Categorical(top_p=top_p), logits) - wanted).abs() <= 5 * error).all()


def test_a_banned_token_has_no_share_of_the_mass() -> None:
    logits = ban(torch.zeros(40_000, 4), torch.tensor([1, 3]))
    for sampler in (Categorical(), Categorical(top_p=0.9), Categorical(top_k=3, top_p=0.9)):
        assert set(draw(sampler, logits).token.tolist()) == {0, 2}


def test_the_nucleus_is_taken_of_what_top_k_left() -> None:
    # Of (0.4, 0.3, 0.3) top 2 are (0.571, 0.429): a nucleus of 0.5 is the first alone.
    assert frequencies(Categorical(top_k=2, top_p=0.5), torch.tensor([0.4, 0.3, 0.3]).log()).tolist() == [1, 0, 0]


def test_confidence_is_the_models_own_at_any_temperature() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0]])
    for sampler in SAMPLERS:
        guess = draw(sampler, logits)
        assert guess.probability.item() == pytest.approx(logits.softmax(1)[0, guess.token].item())


def test_a_low_temperature_does_not_overflow() -> None:
    assert draw(Categorical(temperature=1e-6), torch.tensor([[50.0, 60.0, 10.0]])).token.tolist() == [1]


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=5, max_size=5), st.sampled_from(SAMPLERS), st.integers(0, 9))
def test_what_is_banned_is_never_drawn(values: list[float], sampler: Sampler, seed: int) -> None:
    logits = torch.tensor([values])
    logits[0, 3] = 3e4
    assert draw(sampler, ban(logits, torch.tensor([0, 3])), seed).token.item() in {1, 2, 4}


def test_banning_leaves_the_models_logits_alone() -> None:
    logits = torch.zeros(2, 4)
    assert ban(logits, torch.tensor([1]))[:, 1].tolist() == [-torch.inf] * 2
    assert logits.tolist() == torch.zeros(2, 4).tolist()


def test_chance_comes_from_the_generator_alone() -> None:
    logits = torch.zeros(64, 50)
    first = draw(Categorical(), logits, seed=1).token
    torch.manual_seed(99)
    assert torch.equal(first, draw(Categorical(), logits, seed=1).token)
    assert not torch.equal(first, draw(Categorical(), logits, seed=2).token)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_told(bad: float) -> None:
    for sampler in SAMPLERS:
        with pytest.raises(ArtefactError, match="not finite"):
            draw(sampler, torch.tensor([[0.0, bad, 1.0]]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
    ],
)
def test_nonsense_is_refused_with_its_value(wrong: dict[str, float]) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(UsageError, match=f"{name}={value}"):
        Categorical(**wrong)  # type: ignore[arg-type]


def test_temperature_zero_means_greedy() -> None:
    assert choose_sampler() == Greedy()
    assert choose_sampler(0.8, 5, 0.9) == Categorical(temperature=0.8, top_k=5, top_p=0.9)
