"""A continuation is scored right where the truth is known: as a whole, and block by block."""

import numpy as np
import pytest
import torch

from diffulex_edge.bench.bounds import Reading, Window
from diffulex_edge.bench.conditional import Conditional
from diffulex_edge.model.base import NONE
from diffulex_edge.runtime.decode import prefill
from diffulex_edge.tests.bench_toys import FIRST, MASK, VOCAB, Chain, Toy
from diffulex_edge.tests.toys import backup, eco, ids

SMALL = Reading(batch_tokens=600)
WHOLE = Conditional(kind="canvas", n_samples=8, reading=SMALL)


def ends(documents: list[list[int]], given: int) -> list[Window]:
    return [Window(torch.tensor(document), given, i) for i, document in enumerate(documents)]


def truth(chain: Chain, documents: list[list[int]], given: int) -> np.ndarray:
    """Nats of what follows the given tokens, by the chain's own transitions."""
    texts = np.array(documents) - FIRST
    return -np.log(chain.transition[texts[:, given - 1 : -1], texts[:, given:]]).sum(1)


def test_the_bound_of_the_bayes_denoiser_is_the_conditional_likelihood_within_its_error():
    chain = Chain()
    documents, _ = chain.sample(300, seed=5)
    excess = WHOLE.nats(Toy(chain.posterior), ends(documents, 2)) - truth(chain, documents, 2)
    stderr = excess.std(ddof=1) / np.sqrt(len(excess))
    assert abs(excess.mean()) < 3 * stderr
    assert stderr < 0.05 * truth(chain, documents, 2).mean()  # a bound 15 % off would be seen


def test_one_token_is_exact_with_one_look():
    chain = Chain()
    documents, _ = chain.sample(20, seed=6)
    toy = Toy(chain.posterior)
    np.testing.assert_allclose(WHOLE.nats(toy, ends(documents, 5)), truth(chain, documents, 5), rtol=1e-5)
    assert sum(len(call["block"]) for call in toy.calls) == 20


def test_what_is_given_stays_visible_and_the_rest_is_hidden_at_every_level():
    toy = Toy(lambda ids: torch.zeros(*ids.shape, VOCAB))
    nats = WHOLE.nats(toy, ends([[FIRST] * 6], 2))
    np.testing.assert_allclose(nats, 4 * np.log(VOCAB - 1), rtol=1e-6)  # L / l times l tokens is always L
    block = torch.cat([call["block"] for call in toy.calls])
    assert (block[:, :2] == FIRST).all()
    assert (block == MASK).sum(1).bincount(minlength=5).tolist() == [0, 2, 2, 2, 2]


def test_an_answer_hangs_on_the_seed_and_on_nothing_that_is_asked_beside_it():
    chain = Chain()
    parts = ends(chain.sample(12, seed=7)[0], 3)
    toy = Toy(chain.posterior)
    together = WHOLE.nats(toy, parts)
    alone = np.array([WHOLE.nats(toy, [part])[0] for part in parts])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert not np.allclose(together, Conditional(kind="canvas", n_samples=8, seed=1).nats(toy, parts), rtol=1e-3)


def test_continuations_of_one_text_are_compared_under_the_same_masks():
    toy = Toy(lambda ids: torch.zeros(*ids.shape, VOCAB))
    parts = ends([[FIRST] * 2 + [FIRST + 1] * 4, [FIRST] * 2 + [FIRST + 2] * 4, [FIRST + 3] * 2 + [FIRST] * 4], 2)
    WHOLE.nats(toy, parts)
    hidden = torch.cat([call["rows"] for call in toy.calls]).view(3, 8, 6)
    assert (hidden[0] == hidden[1]).all()
    assert (hidden[0] != hidden[2]).any()


def test_no_forward_takes_more_tokens_than_it_may():
    toy = Toy(lambda ids: torch.zeros(*ids.shape, VOCAB))
    Conditional(kind="full", n_samples=9, reading=Reading(batch_tokens=25)).nats(toy, ends([[FIRST] * 6] * 5, 2))
    assert {tuple(call["block"].shape) for call in toy.calls} == {(4, 6), (1, 6)}


def test_nothing_to_score_costs_nothing():
    toy = Toy(lambda ids: torch.zeros(*ids.shape, VOCAB))
    assert WHOLE.nats(toy, ends([[FIRST] * 3, []], 0)[1:] + ends([[FIRST] * 3], 3)).tolist() == [0.0, 0.0]
    assert not toy.calls


@pytest.mark.parametrize("kind", ["kv", "memory"])
def test_aligned_contexts_are_walked_block_by_block_on_the_grid_of_the_model(kind):
    """With one draw a block the sum is redone by hand: the same draws, each block after a fresh prefill."""
    denoiser = backup(block_length=4) if kind == "kv" else eco()
    asked = Conditional(kind=kind, block_size=4, n_samples=1)
    x, given = ids(1, 11, seed=3), 6  # of the block 4..8 two tokens are fresh, and all three of 8..11
    [part] = ends(x.tolist(), given)
    chance, expected = asked._chance(part), 0.0
    for start, stop in ((4, 8), (8, 11)):
        known = max(given - start, 0)
        noised = asked._draw(x[:, start + known : stop], denoiser.spec.mask_id, [chance])
        context = denoiser.begin(kind, 1, 11)
        for clean in prefill(x[:, :start], 4, denoiser.spec, aligned=True):
            _, context = denoiser(clean, context, rows=NONE)
        block = torch.cat((x[:, start : start + known], noised.xt), 1)
        logits, _ = denoiser(block, context, t=noised.t)
        logits[..., denoiser.spec.mask_id] = -torch.inf
        log_p = logits.log_softmax(-1).gather(2, x[:, start:stop, None])[0, known:, 0]
        expected -= float(log_p[noised.masked[0]].sum() / noised.t)
    assert asked.nats(denoiser, [part])[0] == pytest.approx(expected, rel=1e-5)


def test_block_by_block_equals_the_whole_where_every_block_is_one_token():
    """Blocks of one token are the chain rule itself, so there is no chance in it."""
    denoiser = backup(block_length=1)
    x = ids(3, 7, seed=4)
    logits, _ = denoiser(x, denoiser.begin("full", 3, 7))
    hidden = [denoiser(x.index_fill(1, torch.tensor([i]), 3), denoiser.begin("full", 3, 7))[0][:, i] for i in range(7)]
    logits = torch.stack(hidden, 1)
    logits[..., 3] = -torch.inf
    expected = -logits.log_softmax(-1).gather(2, x[..., None])[:, 3:, 0].sum(1)
    found = Conditional(kind="kv", block_size=1, n_samples=8).nats(denoiser, ends(x.tolist(), 3))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)
