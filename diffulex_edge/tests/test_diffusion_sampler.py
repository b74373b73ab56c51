"""Seed 003's sampler: shifts, confidences with the right sign, and what it accepts of a look at many blocks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.diffusion import DiffusionBlockManager, DiffusionSampler, SampleOutput

MASK, VOCAB = 3, 8


def sure(*tokens: int, by: float = 20.0) -> Tensor:
    """Logits (n, V) that are certain of a token each."""
    return torch.nn.functional.one_hot(torch.tensor(tokens), VOCAB) * by


def of(*rows: tuple[float, ...]) -> Tensor:
    """Logits (n, V) of the given probabilities; the rest of the ids have none."""
    return torch.tensor([[*row, *[0.0] * (VOCAB - len(row))] for row in rows]).log().clamp(min=-1e4)


def blocks(*lengths: int) -> DiffusionBlockManager:
    made, start = DiffusionBlockManager(MASK), 0
    for length in lengths:
        made.create_block(start, length)
        start += length
    return made


def test_a_shift_gives_row_i_what_row_i_minus_1_said() -> None:
    logits = torch.arange(12.0).reshape(3, 4)
    last = torch.tensor([7.0, 8.0, 9.0, 10.0])
    shifted = DiffusionSampler(0).shift_logits(logits, last)
    assert shifted.tolist() == [last.tolist(), *logits[:2].tolist()]
    assert torch.equal(DiffusionSampler(0).shift_logits(logits, last[None]), shifted)


def test_without_a_row_before_it_the_first_keeps_its_own_and_never_sees_the_last() -> None:
    logits = torch.arange(12.0).reshape(3, 4)
    sampler = DiffusionSampler(0)
    for _ in range(2):  # nothing is kept from one call to the next
        assert sampler.shift_logits(logits).tolist() == logits[[0, 0, 1]].tolist()
    assert sampler.shift_logits(logits[:0]).shape == (0, 4)
    assert sampler.shift_logits(logits[:1]).tolist() == logits[:1].tolist()


def test_a_shift_of_anything_but_rows_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\(1, 2, 8\)"):
        DiffusionSampler(0).shift_logits(torch.zeros(1, 2, 8))


def test_confidence_is_the_probability_whatever_the_temperature() -> None:
    logits, tokens = of((0.7, 0.2, 0.1), (0.1, 0.6, 0.3)), torch.tensor([0, 2])
    for temperature in (0.0, 0.5, 2.0):
        found = DiffusionSampler(MASK, temperature=temperature).compute_confidence(logits, tokens)
        torch.testing.assert_close(found, torch.tensor([0.7, 0.3]))


def test_margin_confidence_is_the_gap_between_the_two_likeliest() -> None:
    logits = of((0.7, 0.2, 0.1), (0.5, 0.5))
    found = DiffusionSampler(MASK, margin_confidence=True).compute_confidence(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.0]))


def test_negative_entropy_is_0_where_certain_and_lowest_where_nothing_is_known() -> None:
    logits = torch.cat((sure(5, by=1e4), of((0.5, 0.5)), torch.zeros(1, VOCAB)))
    found = DiffusionSampler(MASK, neg_entropy=True).compute_confidence(logits, torch.tensor([5, 0, 0]))
    torch.testing.assert_close(found, torch.tensor([0.0, -math.log(2), -math.log(VOCAB)]))


def test_two_measures_at_once_are_refused() -> None:
    with pytest.raises(UsageError, match="confidence is one of them"):
        DiffusionSampler(MASK, margin_confidence=True, neg_entropy=True)


def test_the_mask_is_never_sampled_and_no_probability_is_lost_to_it() -> None:
    for temperature in (0.0, 1.0):
        sampler = DiffusionSampler(MASK, temperature=temperature)
        confidence, tokens, probability = sampler.sample_tokens(sure(MASK, MASK, by=50.0) + sure(6, 6, by=9.0))
        assert tokens.tolist() == [6, 6]
        assert probability.min() > 0.99
        torch.testing.assert_close(confidence, probability)


def test_temperature_0_takes_the_likeliest_and_arguments_go_before_the_constructors() -> None:
    logits = of((0.4, 0.35, 0.25)).repeat(200, 1)
    drawn = DiffusionSampler(MASK).sample_tokens(logits)[1]
    assert set(drawn.tolist()) == {0, 1, 2}
    assert set(DiffusionSampler(MASK).sample_tokens(logits, temperature=0)[1].tolist()) == {0}
    assert set(DiffusionSampler(MASK, temperature=0).sample_tokens(logits)[1].tolist()) == {0}
    assert set(DiffusionSampler(MASK, top_k=1).sample_tokens(logits)[1].tolist()) == {0}
    assert set(DiffusionSampler(MASK).sample_tokens(logits, top_k=2)[1].tolist()) == {0, 1}
    assert set(DiffusionSampler(MASK, top_p=0.5).sample_tokens(logits)[1].tolist()) == {0, 1}
    assert set(DiffusionSampler(MASK, top_p=0.5).sample_tokens(logits, top_p=1.0)[1].tolist()) == {0, 1, 2}


def test_chance_is_the_seeds_and_goes_on_from_call_to_call() -> None:
    logits = torch.zeros(30, VOCAB)
    one, same, other = (DiffusionSampler(MASK, seed=seed) for seed in (1, 1, 2))
    first = one.sample_tokens(logits)[1].tolist()
    assert same.sample_tokens(logits)[1].tolist() == first
    assert other.sample_tokens(logits)[1].tolist() != first
    assert one.sample_tokens(logits)[1].tolist() != first


def test_a_mask_beyond_the_vocabulary_is_refused_and_named() -> None:
    with pytest.raises(UsageError, match="mask_token_id=126336 is not one of the 8 ids"):
        DiffusionSampler(126336).sample_tokens(torch.zeros(1, VOCAB))


def test_what_reaches_the_threshold_is_accepted_and_always_the_surest() -> None:
    made = blocks(3, 2)
    logits = of((0.95, 0.05), (0.2, 0.8), (0.05, 0.95), (0.6, 0.4), (0.3, 0.7))
    output = DiffusionSampler(MASK, confidence_threshold=0.9, temperature=0).sample_blocks(made, logits)
    assert isinstance(output, SampleOutput)
    assert output.sampled_tokens == {0: 0, 1: 1, 2: 1, 3: 0, 4: 1}
    assert output.confidence_scores == pytest.approx({0: 0.95, 1: 0.8, 2: 0.95, 3: 0.6, 4: 0.7})
    assert output.accepted_tokens == {0: 0, 2: 1, 4: 1}
    assert made.get_all_mask_positions() == [1, 3]
    assert output.block_states == [
        {"is_active": True, "is_complete": False, "num_accepted": 2, "num_masked": 1},
        {"is_active": True, "is_complete": False, "num_accepted": 1, "num_masked": 1},
    ]


def test_the_threshold_may_be_said_with_the_call() -> None:
    made = blocks(2)
    sampler = DiffusionSampler(MASK, confidence_threshold=1.0, temperature=0)
    output = sampler.sample_blocks(made, of((0.6, 0.4), (0.3, 0.7)), threshold=0.5)
    assert output.accepted_tokens == {0: 0, 1: 1}
    assert not made.has_active_blocks()


@pytest.mark.parametrize(
    ("measure", "accepted"),
    [({}, {1: 1}), ({"margin_confidence": True}, {0: 0}), ({"neg_entropy": True}, {1: 1})],
    ids=str,
)
def test_the_measure_that_was_chosen_says_which_is_the_surest(
    measure: dict[str, Any], accepted: dict[int, int]
) -> None:
    logits = of((0.45, 0.05, 0.05, 0, 0.05, 0.2, 0.1, 0.1), (0.48, 0.52))  # clear of the rest, and one of two
    sampler = DiffusionSampler(MASK, temperature=0, confidence_threshold=0.9, **measure)
    assert sampler.sample_blocks(blocks(2), logits).accepted_tokens == accepted


def test_a_threshold_is_compared_with_one_over_the_perplexity() -> None:
    logits = of((0.5, 0.5), (0.25, 0.25, 0.25, 0, 0.25), (0.98, 0.02))
    sampler = DiffusionSampler(MASK, temperature=0, neg_entropy=True)
    assert set(sampler.sample_blocks(blocks(3), logits, threshold=0.49).accepted_tokens) == {0, 2}
    assert set(sampler.sample_blocks(blocks(3), logits, threshold=0.24).accepted_tokens) == {0, 1, 2}


def test_looks_fill_all_blocks_and_take_nothing_back() -> None:
    made = blocks(4, 3, 5)
    sampler = DiffusionSampler(MASK, confidence_threshold=1.0, seed=5)
    generator, looks = torch.Generator().manual_seed(0), 0
    kept: dict[int, int] = {}
    while made.has_active_blocks():
        output = sampler.sample_blocks(made, torch.randn(12, VOCAB, generator=generator))
        assert not set(output.accepted_tokens) & set(kept)
        kept.update(output.accepted_tokens)
        looks += 1
    assert looks == 5  # one a block and look, and the longest has five
    assert [token for block in made.blocks for token in block.token_ids] == [kept[i] for i in range(12)]
    assert MASK not in kept.values()
    assert sampler.sample_blocks(made, torch.zeros(12, VOCAB)).accepted_tokens == {}


def test_logits_that_do_not_reach_a_block_are_refused() -> None:
    with pytest.raises(UsageError, match="reaches to position 3, the logits to 1"):
        DiffusionSampler(MASK).sample_blocks(blocks(4), torch.zeros(2, VOCAB))
