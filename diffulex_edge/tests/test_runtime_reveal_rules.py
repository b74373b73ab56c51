"""The rules of KLASS, Prophet, SchED, Dream and Fast-dLLM v2, each at the places where it turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import permutations

import pytest
import torch
from torch import Tensor

from diffulex_edge.runtime.confidence import AsDrawn, logit_gap, margin, negative_entropy, probability
from diffulex_edge.runtime.reveal import RevealAbove, RevealByChance, RevealTop
from diffulex_edge.runtime.reveal_settled import Exponential, Prophet, RevealSettled, SchED, cosine, linear
from diffulex_edge.runtime.reveal_stable import RevealStable
from diffulex_edge.runtime.sampler import Categorical, Greedy, Guess
from diffulex_edge.runtime.sub_blocks import SubBlocks
from diffulex_edge.tests.test_runtime_reveal import MASK, guess_of, shown, step

LOGITS = torch.tensor([[2.0, 1.9, -9.0, -9.0], [1.0, 0.0, 0.0, 0.0], [0.5, 0.0, -1.0, -9.0]])


def guess(logits: Tensor = LOGITS, seed: int = 0) -> Guess:
    hidden = torch.ones(1, len(logits), dtype=torch.bool)
    return Greedy()(logits, hidden, torch.Generator().manual_seed(seed))


def test_scores_are_dreams_formulas() -> None:
    p = LOGITS.softmax(-1)
    top = p.sort(-1, descending=True).values
    assert torch.equal(probability(guess()), p.max(-1).values)
    torch.testing.assert_close(margin(guess()), top[:, 0] - top[:, 1])
    torch.testing.assert_close(negative_entropy(guess()), (p * p.log()).sum(-1))
    torch.testing.assert_close(logit_gap(guess()), torch.tensor([0.1, 1.0, 0.5]))


def test_each_score_has_a_favourite_of_its_own() -> None:
    favourites = [int(score(guess()).argmax()) for score in (probability, margin, negative_entropy)]
    assert favourites == [2, 1, 0]


def test_what_is_banned_has_no_part_in_a_score() -> None:
    banned = torch.cat((LOGITS, torch.full((3, 2), -torch.inf)), 1)
    for score in (probability, margin, negative_entropy, logit_gap):
        torch.testing.assert_close(score(guess(banned)), score(guess()))


def test_dream_measures_what_it_draws_from() -> None:
    sampler = Categorical(temperature=0.5, top_p=0.9)
    seen = guess()
    for score in (margin, negative_entropy):
        kept = sampler.shape(LOGITS)
        plain = score(replace(seen, logits=kept))
        torch.testing.assert_close(AsDrawn(score, sampler)(seen), plain)
        assert not torch.allclose(plain.float(), score(seen))
    nucleus = (LOGITS / 0.5).softmax(-1).sort(-1, descending=True).values[1, :3]  # 0.72 + 0.10 + 0.10 passes 0.9
    assert AsDrawn(probability, sampler)(seen)[1].item() == pytest.approx((nucleus[0] / nucleus.sum()).item())


def test_a_temperature_of_places_draws_them_without_replacement() -> None:
    scores, alg_temp, rows = torch.tensor([0.9, 0.6, 0.5, 0.1]), 0.3, 20_000
    block = torch.full((rows, 4), MASK)
    after, _ = RevealTop(alg_temp=alg_temp)(
        guess_of(block, scores.repeat(rows)), block, block != MASK, step([2] * rows), None
    )
    weight = (scores / alg_temp).softmax(0).tolist()
    wanted = dict.fromkeys(range(4), 0.0)
    for first, second in permutations(range(4), 2):  # drawn one after the other
        chance = weight[first] * weight[second] / (1 - weight[first])
        wanted[first] += chance
        wanted[second] += chance
    found = (after != MASK).float().mean(0)
    assert ((after != MASK).sum(1) == 2).all()
    assert found.sub(torch.tensor(list(wanted.values()))).abs().max() < 0.015


def test_no_temperature_of_places_takes_the_highest_and_draws_nothing() -> None:
    seen = guess_of(torch.full((1, 3), MASK), [0.2, 0.9, 0.5])
    state = seen.generator.get_state()
    assert shown(RevealTop(alg_temp=0.0), [0.2, 0.9, 0.5], 1) == [1]
    RevealTop()(seen, torch.full((1, 3), MASK), torch.zeros(1, 3, dtype=torch.bool), step([1]), None)
    assert torch.equal(seen.generator.get_state(), state)


@pytest.mark.parametrize("index", [0, 3, 7])
def test_origin_shows_each_token_with_dreams_chance(index: int) -> None:
    block, eps, steps = torch.full((4000, 5), MASK), 0.1, 9
    after, _ = RevealByChance(Fraction(1, 10))(
        guess_of(block, torch.rand(20_000)), block, block != MASK, step([0] * 4000, index=index), None
    )
    times = torch.linspace(1, eps, steps + 1)
    chance = 1 - times[index + 1] / times[index]
    counts = (after != MASK).sum(1)
    assert counts.float().mean().item() / 5 == pytest.approx(chance.item(), abs=0.012)
    assert counts.float().var().item() == pytest.approx(5 * chance.item() * (1 - chance.item()), abs=0.06), "binomial"


def test_origin_shows_all_in_the_last_step_however_small_its_chance() -> None:
    reveal = RevealByChance(Fraction(99, 100))
    assert shown(reveal, [0.5] * 8, 0, last=True) == list(range(8))
    assert shown(reveal, [0.5] * 8, 8) == [], "and before that no quota helps"


def stable(reveal: RevealStable, steps: Sequence[Sequence[float]], quota: int = 0) -> list[list[int]]:
    """What is shown at each step of one row, the given probabilities being those of all its positions."""
    block, state, told = torch.full((1, len(steps[0])), MASK), None, []
    for index, now in enumerate(steps):
        before = block
        hidden = (block[0] == MASK).tolist()
        sure = [p for p, still in zip(now, hidden, strict=True) if still]
        block, state = reveal(guess_of(block, sure), block, block != block, step([quota], index=index), state)
        told.append(((block != before)[0]).nonzero()[:, 0].tolist())
    return told


def test_klass_waits_until_a_sure_guess_has_been_the_same_for_two_steps() -> None:
    sure = [0.96, 0.95, 0.95, 0.2]
    assert stable(RevealStable(), [sure] * 3) == [[0], [1], [2]], "two comparisons need three steps"
    assert stable(RevealStable(), [sure, sure, [0.96, 0.95, 0.5, 0.2]]) == [[0], [1], [2]]
    assert stable(RevealStable(history=1), [sure] * 3) == [[0], [1, 2], [3]]
    assert stable(RevealStable(0.1), [[0.4, 0.3, 0.3, 0.2, 0.2]] * 3) == [[0], [1], [2, 3, 4]]
    assert stable(RevealStable(0.97), [sure] * 3) == [[0], [1], [2]], "stable, but not sure"


def test_a_guess_that_moves_begins_to_wait_anew() -> None:
    still, moved = [0.99, 0.98, 0.96, 0.95, 0.95], [0.99, 0.98, 0.96, 0.95, 0.91]
    assert stable(RevealStable(), [still] * 3)[2] == [2, 3, 4]
    assert stable(RevealStable(), [still, moved, moved])[2] == [2, 3]
    p, q = torch.tensor(0.91), torch.tensor(0.95)
    kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).item()  # of the new one to the old one
    reverse = (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).item()
    assert kl > reverse
    assert stable(RevealStable(kl=kl * 1.01), [still, moved, moved])[2] == [2, 3, 4]
    assert stable(RevealStable(kl=(kl + reverse) / 2), [still, moved, moved])[2] == [2, 3]


def test_klass_fills_up_to_the_quota_behind_what_is_ready() -> None:
    steps = [[0.4, 0.3, 0.9, 0.2]] * 2
    assert stable(RevealStable(0.35, history=1), steps, quota=1) == [[2], [0]]
    reveal = RevealStable(0.0, kl=0.5, history=1)
    assert stable(reveal, [[0.1, 0.9, 0.2], [0.1, 0.9, 0.2]], quota=1) == [[1], [0, 2]]
    moving = [[0.9, 0.5, 0.35], [0.0, 0.97, 0.35]]  # at the second step only the less sure one is ready
    assert stable(RevealStable(0.3, history=1), moving, quota=1) == [[0], [2]]
    assert stable(RevealStable(0.3, history=1), moving, quota=2)[1] == [2]


def test_klass_remembers_no_more_than_what_is_hidden() -> None:
    block = torch.full((2, 6), MASK)
    after, memory = RevealStable()(guess_of(block, torch.rand(12)), block, block != block, step([2, 4]), None)
    _, memory = RevealStable()(guess_of(after, torch.rand(6)), after, block != block, step([0, 0]), memory)
    assert memory.log_probs.shape == (6, 12)
    assert memory.log_probs.dtype == torch.float32


def test_klass_is_not_confused_by_banned_ids() -> None:
    block = torch.full((1, 2), MASK)
    first = guess_of(block, [0.95, 0.2])
    banned = replace(first, logits=torch.cat((first.logits, torch.full((2, 3), -torch.inf)), 1))
    _, memory = RevealStable(history=1)(banned, block, block != block, step([0]), None)
    after, _ = RevealStable(history=1)(
        replace(banned, hidden=torch.tensor([[True, True]])), block, block != block, step([0]), memory
    )
    assert (after != MASK).tolist() == [[True, False]]


def test_prophet_asks_for_less_in_each_phase() -> None:
    progress = torch.tensor([0.0, 0.32, 0.34, 0.66, 0.68, 1.0])
    assert Prophet()(progress).tolist() == [7.5, 7.5, 5.0, 5.0, 2.5, 2.5]


def test_sched_falls_smoothly_from_high_to_low() -> None:
    p = torch.linspace(0, 1, 11)
    for curve, formula in (
        (linear, lambda x: 7.5 + (2.5 - 7.5) * x),
        (cosine, lambda x: 2.5 + 0.5 * (7.5 - 2.5) * (1 + math.cos(math.pi * x))),
        (Exponential(4.0), lambda x: 2.5 + (7.5 - 2.5) * math.exp(-4 * x)),
    ):
        found = SchED(7.5, 2.5, curve)(p)
        torch.testing.assert_close(found, torch.tensor([formula(x) for x in p.tolist()]))
        assert (found.diff() < 0).all()


def test_a_settled_row_is_shown_whole_and_the_others_go_on() -> None:
    block = torch.tensor([[5, MASK, MASK, MASK], [MASK, MASK, MASK, 5], [MASK, 5, 5, 5]])
    gaps = [6.0, 4.9, 4.2, 6.0, 4.0, 4.9, 9.0]  # means: 5.03, 4.97, 9
    logits = torch.zeros(7, 12)
    logits[:, 9] = torch.tensor(gaps)
    seen = Greedy()(logits, block == MASK, torch.Generator())
    reveal, middle = RevealSettled(), step([1, 1, 1], index=4)
    after, _ = reveal(seen, block, block != MASK, middle, None)
    assert after.tolist() == [[5, 9, 9, 9], [9, MASK, MASK, 5], [9, 5, 5, 5]]
    early, _ = reveal(seen, block, block != MASK, step([1, 1, 1], index=1), None)
    assert (early == MASK).sum(1).tolist() == [2, 2, 0]


def test_the_state_of_the_inner_reveal_is_kept() -> None:
    block = torch.full((1, 3), MASK)
    reveal = RevealSettled(Prophet(99.0, 99.0, 99.0), RevealStable())
    _, memory = reveal(guess_of(block, [0.9, 0.8, 0.7]), block, block != block, step([1]), None)
    _, memory = reveal(guess_of(block, [0.9, 0.8, 0.7]), block, block != block, step([1]), memory)
    assert memory.calm.tolist() == [[1, 1, 1]]


def test_nothing_is_shown_behind_the_first_sub_block_that_has_something_hidden() -> None:
    block = torch.tensor([[5, 5, MASK, MASK, MASK, MASK, MASK], [5, 5, 5, 5, 5, MASK, MASK], [5] * 7])
    sure = [0.3, 0.1, 0.99, 0.99, 0.99, 0.2, 0.4]
    after, _ = SubBlocks(RevealAbove(0.9), size=3)(guess_of(block, sure), block, block != MASK, step([1, 1, 1]), None)
    assert after.tolist() == [[5, 5, 9, MASK, MASK, MASK, MASK], [5, 5, 5, 5, 5, 9, MASK], [5] * 7]


def test_sub_blocks_as_long_as_the_block_change_nothing() -> None:
    for size in (4, 9):
        assert shown(SubBlocks(RevealAbove(0.5), size), [0.6, 0.4, 0.5, 0.7], 1) == [0, 2, 3]


def test_inside_a_sub_block_the_best_is_always_shown() -> None:
    assert shown(SubBlocks(RevealAbove(0.95), size=2), [0.1, 0.2, 0.99, 0.99], 0) == [1]
    assert shown(SubBlocks(RevealTop(), size=2), [0.1, 0.2, 0.99, 0.99], 3) == [0, 1]
