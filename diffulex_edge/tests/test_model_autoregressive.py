"""Blocks of one token: the causal Transformer reads, is trained and decodes one token after the other."""

from __future__ import annotations

import math

import pytest
import torch

from diffulex_edge.bench import bounds
from diffulex_edge.bench.blocks import block_bounds
from diffulex_edge.errors import UsageError
from diffulex_edge.model.autoregressive import next_token_logits
from diffulex_edge.model.base import NONE
from diffulex_edge.runtime.decode import Finished, decode
from diffulex_edge.runtime.plan import Plan, mode_plan, plan_for
from diffulex_edge.runtime.sampler import Categorical
from diffulex_edge.tests import toys
from diffulex_edge.train.objective import Moment, Objective, ObjectiveConfig


def test_one_pass_speaks_about_a_token_as_the_cache_does_when_it_gets_there() -> None:
    model, x = toys.backup(block_length=1), toys.ids(2, 12)
    logits = next_token_logits(model, x)
    for kind in ("kv", "full"):
        context = model.begin(kind, 2, 12)
        for i in range(12):
            seen, _ = model(x.new_full((2, 1), model.spec.mask_id), context)
            torch.testing.assert_close(seen[:, 0], logits[:, i], rtol=1e-4, atol=1e-5)
            _, context = model(x[:, i : i + 1], context, rows=NONE)


def test_a_token_is_spoken_about_by_those_before_it_only() -> None:
    model, x = toys.backup(block_length=1), toys.ids(1, 12)
    other = x.clone()
    other[0, 6] = (x[0, 6] + 1) % model.spec.mask_id
    same = (next_token_logits(model, x) == next_token_logits(model, other)).all(-1)[0]
    assert same[:7].all() and not same[7:].any()


def test_greedy_decoding_writes_what_is_likeliest_after_each_text() -> None:
    model, prompt = toys.backup(block_length=1), toys.ids(2, 5)
    last = list(decode(model, prompt, plan_for(model.spec, max_new_tokens=6)))[-1]
    assert isinstance(last, Finished)
    text = torch.tensor(last.texts)
    logits = next_token_logits(model, text)
    logits[..., model.spec.mask_id] = -math.inf
    assert torch.equal(text[:, 5:], logits[:, 5:].argmax(-1))
    assert last.commits == 6  # one pass a token: the prompt, and all but the last of those that were written


def test_rows_of_different_lengths_and_an_empty_one_decode_as_alone() -> None:
    model = toys.backup(block_length=1)
    plan = plan_for(model.spec, max_new_tokens=4)
    prompts: list[list[int]] = [toys.ids(1, 5)[0].tolist(), [], [7, 9]]
    together = list(decode(model, prompts, plan))[-1]
    assert isinstance(together, Finished)
    for prompt, text in zip(prompts, together.texts, strict=True):
        alone = list(decode(model, [prompt], plan))[-1]
        assert isinstance(alone, Finished)
        assert alone.texts[0] == text


def test_sampling_draws_the_tokens_that_the_sampler_says() -> None:
    model, plan = toys.backup(block_length=1), {"max_new_tokens": 8, "sampler": Categorical(temperature=50.0)}
    texts = []
    for seed in (0, 0, 1):
        last = list(decode(model, toys.ids(1, 4), plan_for(model.spec, seed=seed, **plan)))[-1]
        assert isinstance(last, Finished)
        texts.append(last.texts)
    assert texts[0] == texts[1] != texts[2]


def test_its_loss_is_next_token_cross_entropy_and_reaches_every_weight() -> None:
    model, x = toys.backup(block_length=1).requires_grad_(True), toys.ids(4, 16)
    objective = Objective(ObjectiveConfig(), None, model.spec)
    ((loss, tokens),) = objective(model, x, Moment(0.5, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        logits = next_token_logits(model, x)
    logits[..., model.spec.mask_id] = -math.inf
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x.flatten(), reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    assert tokens == 64 and objective.trained_modes == ()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_block_of_more_tokens_is_refused() -> None:
    model = toys.backup(block_length=1)
    with pytest.raises(UsageError, match="one token at a time"):
        next(decode(model, toys.ids(1, 4), plan_for(model.spec, block_size=8)))
    assert mode_plan("block", Plan(block_size=8), model.spec).block_size == 1


def test_its_bound_is_its_likelihood_and_blocks_are_not_scored() -> None:
    model, documents = toys.backup(block_length=1), [toys.ids(1, n, seed=n)[0].tolist() for n in (8, 11)]
    parts = bounds.windows(documents, 8)
    found = bounds.nelbo(model, parts)
    logits = next_token_logits(model, parts[2].ids[None])[0]
    logits[:, model.spec.mask_id] = -math.inf
    nats = torch.nn.functional.cross_entropy(logits, parts[2].ids, reduction="none")
    assert found.nats[2, 0] == pytest.approx(float(nats[parts[2].given :].sum()), rel=1e-5)
    assert found.tokens.tolist() == [8, 8, 3]
    assert "autoregressive" in block_bounds(model, parts, block_size=4, modes=("block",)).missing["block"]
