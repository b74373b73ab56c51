"""The bound is right where the truth is known, and says what each mode sees."""

import numpy as np
import pytest
import torch

from diffulex_edge.bench import blocks, bounds
from diffulex_edge.bench.statistics import ratio
from diffulex_edge.tests.bench_toys import FIRST, MASK, VOCAB, Chain, Toy

SMALL = bounds.Reading(batch_tokens=1200)


def test_nelbo_of_the_bayes_denoiser_equals_the_exact_likelihood_within_its_error():
    """For the exact posterior every order gives the same likelihood, so the any-order bound is tight."""
    chain = Chain()
    documents, log_p = chain.sample(200, seed=1)
    bound = bounds.nelbo(Toy(chain.posterior), bounds.windows(documents, 6), n_samples=8, seed=2, reading=SMALL)
    excess = bound.nats.mean(1) + log_p  # of each document; its mean is 0
    stderr = excess.std(ddof=1) / np.sqrt(len(excess))
    assert abs(excess.mean()) < 3 * stderr
    assert stderr < 0.05 * -log_p.mean()  # the test has teeth: a bound 15 % off would be seen


def test_nelbo_of_a_worse_denoiser_is_worse():
    chain = Chain()
    documents, log_p = chain.sample(100, seed=1)
    blurred = Toy(lambda ids: (0.5 * chain.posterior(ids).exp() + 0.5 / VOCAB).log())
    bound = bounds.nelbo(blurred, bounds.windows(documents, 6), n_samples=8, reading=SMALL)
    assert bound.nats.mean() > -log_p.mean() * 1.15


def test_every_noise_level_is_drawn_and_weighs_what_it_should():
    """A uniform guesser costs log of the symbols a token, whatever the noise: L / l times l tokens is always L."""
    uniform = Toy(lambda ids: torch.zeros(*ids.shape, VOCAB))
    bound = bounds.nelbo(uniform, bounds.windows([[FIRST] * 8, [FIRST] * 3], 8), n_samples=5)
    np.testing.assert_allclose(bound.nats, np.log(VOCAB - 1) * bound.tokens[:, None].repeat(5, 1), rtol=1e-6)
    counts = bounds.stratified_counts(6, 4, 8, torch.Generator().manual_seed(0))
    assert counts.min() >= 1
    assert counts.max() <= 8
    assert sorted(set(counts.flatten().tolist())) == list(range(1, 9))  # 24 strata over 8 levels miss none
    drawn = torch.cat([bounds.stratified_counts(1, 1, 4, torch.Generator().manual_seed(seed)) for seed in range(2000)])
    assert torch.bincount(drawn.flatten(), minlength=5)[1:].tolist() == pytest.approx([500] * 4, abs=90)


def test_windows_cover_every_token_once_and_a_short_last_one_reaches_back():
    documents = [list(range(10)), [], list(range(3)), list(range(8))]
    found = bounds.windows(documents, 4)
    for i, document in enumerate(documents):
        scored = [int(x) for part in found if part.document == i for x in part.ids[part.given :]]
        assert scored == document
    assert [(len(part.ids), part.given) for part in found] == [(4, 0), (4, 0), (4, 2), (3, 0), (4, 0), (4, 0)]


def test_given_tokens_are_visible_and_not_scored():
    chain = Chain()
    documents, _ = chain.sample(300, seed=3)
    ends = [bounds.Window(torch.tensor(document), 4, i) for i, document in enumerate(documents)]
    bound = bounds.nelbo(Toy(chain.posterior), ends, n_samples=8, reading=SMALL)
    texts = np.array(documents) - FIRST
    truth = np.log(chain.transition[texts[:, 3:5], texts[:, 4:6]]).sum(1)
    excess = bound.nats.mean(1) + truth
    assert abs(excess.mean()) < 3 * excess.std(ddof=1) / np.sqrt(len(excess))
    assert (bound.tokens == 2).all()


def test_mask_is_banned_and_costs_nothing():
    loves_mask = Toy(lambda ids: torch.zeros(*ids.shape, VOCAB).index_fill(2, torch.tensor([MASK]), 50.0))
    bound = bounds.nelbo(loves_mask, bounds.windows([[FIRST] * 6], 6))
    np.testing.assert_allclose(bound.nats, 6 * np.log(VOCAB - 1), rtol=1e-6)


def test_blocks_of_the_bayes_denoiser_add_up_to_the_likelihood_and_seeing_more_costs_less():
    chain = Chain(4)
    documents, log_p = chain.sample(300, seed=1004)
    parts = blocks.stretches(documents, 2, 4)
    found = blocks.block_bounds(Toy(chain.posterior), parts, block_size=2, n_samples=8, reading=SMALL)
    total = {mode: nats.mean(1).sum(1) for mode, nats in found.nats.items()}
    excess = total["block"] + log_p
    assert abs(excess.mean()) < 3 * excess.std(ddof=1) / np.sqrt(len(excess))
    assert total["full"].mean() < total["block"].mean() < total["isolated"].mean()
    assert set(found.missing) == {"block_frozen", "memory_shuffled"}
    assert "memory" in found.missing["block_frozen"]


def recorder(asked: list[torch.Tensor]):
    """A uniform answer that writes down what it was asked."""

    def answer(ids):
        asked.append(ids)
        return torch.zeros(*ids.shape, VOCAB)

    return answer


def test_every_mode_sees_the_same_masks_and_its_own_surroundings():
    toy = Toy(lambda ids: torch.zeros(*ids.shape, VOCAB), ("canvas", "full", "memory"))
    documents = [[FIRST] * 6, [FIRST + 1] * 6]
    seen: dict[str, list] = {}
    for mode in blocks.JUDGED:
        toy.calls.clear()
        asked: list[torch.Tensor] = []
        toy.answer = recorder(asked)
        blocks.block_bounds(toy, blocks.stretches(documents, 2, 6), block_size=2, n_samples=1, modes=[mode])
        seen[mode] = asked
    masks = {mode: [(ids == MASK).sum(1).tolist() for ids in asked] for mode, asked in seen.items()}
    assert all(value == masks["full"] for value in masks.values())
    assert [ids.shape[1] for ids in seen["full"]] == [6, 6, 6]
    assert [ids.shape[1] for ids in seen["block"]] == [2, 4, 6]
    assert [ids.shape[1] for ids in seen["isolated"]] == [2, 2, 2]
    last = seen["memory_shuffled"][-1]
    assert (last[0, :4] == FIRST + 1).all()
    assert (last[1, :4] == FIRST).all()


def test_documents_are_cut_to_whole_blocks_and_short_ones_are_one():
    parts = blocks.stretches([[FIRST] * n for n in (70, 31, 0, 5, 32, 64)], 32, 40)
    assert [(len(part.ids), part.document) for part in parts] == [(32, 0), (31, 1), (5, 3), (32, 4), (32, 5)]
    assert blocks.block_tokens(blocks.stretches([[FIRST] * 70, [FIRST] * 5], 32, 70), 32).tolist() == [[32, 32], [5, 0]]


def test_one_document_has_no_other_document_and_says_so():
    toy = Toy(lambda ids: torch.zeros(*ids.shape, VOCAB), ("memory", "full"))
    found = blocks.block_bounds(toy, blocks.stretches([[FIRST] * 6], 2, 6), block_size=2)
    assert found.missing["memory_shuffled"] == "needs a second document"


def test_depth_follows_the_noise_of_each_row():
    toy = Toy(lambda ids: torch.zeros(*ids.shape, VOCAB))
    reading = bounds.Reading(depths=lambda share: torch.where(share > 0.5, 2, 4))
    bounds.nelbo(toy, bounds.windows([[FIRST] * 4] * 8, 4), n_samples=2, reading=reading)
    shares: dict[int, list[float]] = {depth: [] for depth in (2, 4)}
    for call in toy.calls:
        wanted = call["rows"].any(1)
        shares[call["depth"]] += call["rows"].float().mean(1)[wanted].tolist()
    assert min(shares[2]) > 0.5
    assert max(shares[4]) <= 0.5
    assert len(shares[2]) + len(shares[4]) == 16


def test_ratio_estimate_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        sizes = rng.integers(1, 30, 60).astype(float)
        amounts = sizes * (2 + rng.normal(0, 0.5, 60))
        estimate = ratio(amounts, sizes)
        hits += abs(estimate.value - 2) < 1.96 * estimate.stderr
    assert 0.90 < hits / 400 < 0.98
    assert np.isnan(ratio(np.array([1.0]), np.array([2.0])).stderr)
