"""Reveals: one suite of promises over all of them, and what each one is for."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.confidence import AsDrawn, margin, negative_entropy
from diffulex_edge.runtime.reveal import (
    Remasking,
    Reveal,
    RevealAbove,
    RevealAll,
    RevealByChance,
    RevealEntropyBound,
    RevealFactor,
    RevealInOrder,
    RevealRandom,
    RevealTop,
)
from diffulex_edge.runtime.reveal_settled import Exponential, Prophet, RevealSettled, SchED
from diffulex_edge.runtime.reveal_stable import RevealStable
from diffulex_edge.runtime.sampler import Categorical, Guess
from diffulex_edge.runtime.step import Step
from diffulex_edge.runtime.sub_blocks import SubBlocks

MASK = 3
REVEALS: list[Reveal] = [
    RevealTop(),
    RevealTop(margin),
    RevealTop(negative_entropy, alg_temp=0.5),
    RevealTop(AsDrawn(negative_entropy, Categorical(temperature=0.5, top_p=0.9))),
    RevealByChance(),
    RevealStable(0.5, kl=1.0),
    RevealSettled(),
    RevealSettled(SchED(high=3.0), RevealAbove(0.6)),
    SubBlocks(size=4),
    SubBlocks(RevealStable(0.5, kl=1.0, history=1), size=3),
    Remasking(SubBlocks(RevealTop(), size=3)),
    Remasking(RevealStable(0.2, kl=1.0, history=1)),
    RevealSettled(Prophet(3.0, 2.0, 1.0), Remasking(one_in=2)),
    RevealAbove(0.6),
    RevealFactor(),
    RevealEntropyBound(0.5),
    RevealInOrder(),
    RevealRandom(),
    Remasking(),
    Remasking(RevealAbove(0.6), one_in=2),
    RevealAll(),
]


def guess_of(block: Tensor, probability: Sequence[float] | Tensor, seed: int = 0) -> Guess:
    """A guess of token 9 everywhere, with the given probabilities over 12 ids."""
    hidden = block == MASK
    p = torch.as_tensor(probability, dtype=torch.float)
    logits = ((1 - p) / 11).log()[:, None].repeat(1, 12)
    logits[:, 9] = p.log()
    return Guess(torch.full((len(p),), 9), p, logits, hidden, torch.Generator().manual_seed(seed))


def step(quota: Sequence[int], *, last: bool = False, index: int = 0) -> Step:
    n, steps = len(quota), index + 1 if last else 9
    t, s = (torch.full((n,), 1 - (index + i) / steps) for i in (0, 1))
    quotas, lasts = torch.tensor(quota), torch.tensor([last] * n)
    return Step(index=index, steps=steps, t=t, s=s, depth=1, quota=quotas, last=lasts)


def due(reveal: Reveal, hidden: Tensor, quota: Tensor) -> Tensor:
    """How many of the hidden positions (B, L) a reveal owes at least (B,)."""
    if isinstance(reveal, RevealByChance):
        return torch.zeros_like(quota)
    inner = reveal.inner if isinstance(reveal, Remasking) else reveal
    size = inner.size if isinstance(inner, SubBlocks) else hidden.shape[1]
    part = torch.arange(hidden.shape[1]) // size
    first = torch.where(hidden, part, 99).amin(1, keepdim=True)
    return torch.minimum(quota, (hidden & (part == first)).sum(1))


def shown(reveal: Reveal, probability: Sequence[float], quota: int, *, last: bool = False) -> list[int]:
    """Which positions of one row of masks are shown."""
    block = torch.full((1, len(probability)), MASK)
    after, _ = reveal(
        guess_of(block, probability), block, torch.zeros_like(block, dtype=torch.bool), step([quota], last=last), None
    )
    return (after[0] != MASK).nonzero()[:, 0].tolist()


@given(st.sampled_from(REVEALS), st.integers(0, 10_000))
@settings(deadline=None, max_examples=200)
def test_promises_of_every_reveal(reveal: Reveal, seed: int) -> None:
    """Nothing but hidden places changes (but for hiding again), the quota is a floor, and the last step shows all."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.where(torch.rand(3, 10, generator=generator) < 0.7, MASK, 5)
    block, given_, state = start, start != MASK, None
    total = (start == MASK).sum(1)
    for index in range(5):
        hidden = block == MASK
        if not hidden.any():
            break
        probability = torch.rand(int(hidden.sum()), generator=generator)
        quota = torch.full((3,), 2)
        before = block
        this = step(quota.tolist(), last=index == 4, index=index)
        block, state = reveal(guess_of(before, probability), before, given_, this, state)
        assert torch.equal(block[given_], start[given_])
        assert set(block[~given_].tolist()) <= {MASK, 9}
        assert ((before == MASK) & (block != MASK)).sum(1).ge(due(reveal, hidden, quota)).all()
    assert not (block == MASK).any()
    assert torch.equal((block == 9).sum(1), total)


def test_top_takes_the_most_confident_and_the_first_of_equals() -> None:
    assert shown(RevealTop(), [0.2, 0.9, 0.5, 0.9], 2) == [1, 3]
    assert shown(RevealTop(), [0.5, 0.5, 0.5, 0.5], 3) == [0, 1, 2]
    assert shown(RevealTop(), [0.5] * 40, 3) == [0, 1, 2]
    assert shown(RevealTop(), [0.2, 0.9], 0) == []
    assert shown(RevealTop(), [0.2, 0.9, 0.3], 1, last=True) == [0, 1, 2]


def test_every_row_has_a_quota_of_its_own() -> None:
    block = torch.tensor([[MASK, 5, MASK], [MASK, MASK, MASK]])
    after, _ = RevealTop()(guess_of(block, [0.1, 0.2, 0.3, 0.5, 0.4]), block, block != MASK, step([1, 2]), None)
    assert after.tolist() == [[MASK, 5, 9], [MASK, 9, 9]]


def test_above_shows_all_that_is_sure_and_never_less_than_one() -> None:
    assert shown(RevealAbove(0.5), [0.6, 0.4, 0.5, 0.7], 1) == [0, 2, 3]
    assert shown(RevealAbove(0.95), [0.6, 0.4, 0.5, 0.7], 1) == [3]
    assert shown(RevealAbove(0.95), [0.6, 0.4, 0.5, 0.7], 0) == [3]
    assert shown(RevealAbove(0.95), [0.6, 0.4, 0.5, 0.7], 2) == [0, 3]
    assert shown(RevealAbove(1.0), [0.6, 1.0, 1.0, 0.7], 1) == [1, 2]
    assert shown(RevealAbove(0.0), [0.1, 0.2], 1) == [0, 1]


def test_the_factor_rule_counts_as_fast_dllm_does() -> None:
    # (n + 1) (1 - c_n) for c = .9, .8, .75, .5: 0.2, 0.6, 1.0, 2.5
    probability = [0.75, 0.9, 0.5, 0.8]
    assert shown(RevealFactor(1.001), probability, 1) == [0, 1, 3]
    assert shown(RevealFactor(0.7), probability, 1) == [1, 3]
    assert shown(RevealFactor(0.0), probability, 1) == [1]


def test_the_factor_rule_stops_at_the_first_that_fails() -> None:
    # 2 (1 - .4) = 1.2 fails; nothing behind it may pass.
    assert shown(RevealFactor(1.0), [0.4, 0.3], 0) == [0]


def test_the_entropy_bound_sums_all_but_the_largest() -> None:
    probability = [0.5, 0.99, 0.9, 0.98]
    p = torch.tensor(probability)
    rest = (1 - p) / 11
    h = -(p * p.log() + 11 * rest * rest.log())  # order: 1, 3, 2, 0
    assert shown(RevealEntropyBound(float(h[1]) * 0.99), probability, 1) == [1]
    assert shown(RevealEntropyBound(float(h[1]) * 1.01), probability, 1) == [1, 3]
    assert shown(RevealEntropyBound(float(h[1] + h[3]) * 1.01), probability, 1) == [1, 2, 3]
    assert shown(RevealEntropyBound(0.0), probability, 1) == [1]
    assert shown(RevealEntropyBound(99.0), probability, 1) == [0, 1, 2, 3]


def test_in_order_goes_from_left_to_right() -> None:
    assert shown(RevealInOrder(), [0.1, 0.2, 0.9, 0.8], 2) == [0, 1]


def test_random_shows_every_place_alike() -> None:
    block = torch.full((4000, 5), MASK)
    after, _ = RevealRandom()(guess_of(block, torch.rand(20_000)), block, block != MASK, step([2] * 4000), None)
    assert ((after != MASK).sum(1) == 2).all()
    assert (after != MASK).float().mean(0).sub(0.4).abs().max() < 0.04


def test_all_shows_all() -> None:
    assert shown(RevealAll(), [0.1, 0.2], 0) == [0, 1]


def remask(one_in: int, rounds: int, block: Tensor, given_: Tensor, probability: list[float]) -> tuple[Tensor, Any]:
    reveal, state = Remasking(one_in=one_in), None
    for index in range(rounds):
        hidden = int((block == MASK).sum())
        block, state = reveal(
            guess_of(block, probability[:hidden], index), block, given_, step([2], index=index), state
        )
    return block, state


def test_remasking_hides_its_share_of_earlier_tokens_and_makes_up_for_it() -> None:
    block = torch.full((1, 10), MASK)
    free = torch.zeros_like(block, dtype=torch.bool)
    assert (remask(2, 1, block, free, [0.5] * 10)[0] != MASK).sum() == 2  # nothing was shown before the first step
    assert (remask(2, 2, block, free, [0.5] * 10)[0] != MASK).sum() == 3  # 4 shown, 1 of the 2 earlier ones hidden
    assert (
        remask(2, 3, block, free, [0.5] * 10)[0] != MASK
    ).sum() == 4  # 6 shown again, 2 of the 3 earlier ones hidden


def test_remasking_prefers_to_hide_what_was_least_sure() -> None:
    counts = torch.zeros(2)
    for seed in range(400):
        block = torch.tensor([[MASK, MASK, MASK, MASK]])
        reveal, free = Remasking(one_in=2), torch.zeros(1, 4, dtype=torch.bool)
        block, state = reveal(guess_of(block, [1.0, 0.6, 0.1, 0.1], seed), block, free, step([2]), None)
        after, _ = reveal(guess_of(block, [0.5, 0.4], 1000 + seed), block, free, step([1]), state)
        counts += (after[0, :2] == MASK).float()
    wanted = torch.tensor([-1.0, -0.6]).softmax(0)  # ReMDM: in proportion to exp(-p)
    assert counts.sum() == 400
    assert abs(counts[1] / 400 - wanted[1]) < 0.1


def test_remasking_never_hides_what_is_given() -> None:
    block = torch.tensor([[5, 5, 5, 5, MASK, MASK, MASK, MASK]])
    after, _ = remask(1, 2, block, block != MASK, [0.5] * 4)
    assert after[0, :4].tolist() == [5] * 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: RevealAbove(1.5),
        lambda: RevealAbove(float("nan")),
        lambda: RevealFactor(-1.0),
        lambda: RevealFactor(float("nan")),
        lambda: RevealEntropyBound(float("inf")),
        lambda: Remasking(one_in=0),
        lambda: RevealTop(alg_temp=-1.0),
        lambda: RevealTop(alg_temp=float("nan")),
        lambda: RevealByChance(Fraction(1)),
        lambda: RevealStable(1.1),
        lambda: RevealStable(kl=-0.1),
        lambda: RevealStable(history=0),
        lambda: Prophet(mid=float("nan")),
        lambda: SchED(low=-1.0),
        lambda: Exponential(float("inf")),
        lambda: SubBlocks(size=0),
    ],
)
def test_nonsense_is_refused(make: Any) -> None:
    with pytest.raises(UsageError):
        make()
