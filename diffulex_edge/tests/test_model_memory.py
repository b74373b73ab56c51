"""EcoHybrid's frozen memory: what training.md asks of it before it is trusted."""

from __future__ import annotations

import torch

from diffulex_edge.model.base import NONE
from diffulex_edge.model.context import join
from diffulex_edge.tests import toys


def chain(model, text, block: int) -> list:
    """The contexts before each block."""
    contexts = [model.begin("memory", len(text), text.shape[1])]
    for start in range(0, text.shape[1], block):
        contexts.append(model(text[:, start : start + block], contexts[-1], rows=NONE)[1])
    return contexts


def test_training_denoises_each_block_exactly_as_decoding_does() -> None:
    model, text = toys.eco(), toys.ids(2, 32)
    contexts = chain(model, text, 8)[:4]
    noised = text.masked_fill(torch.rand(2, 32, generator=torch.Generator().manual_seed(0)) < 0.5, 3)
    folded, _ = model(noised.unflatten(1, (4, 8)).flatten(0, 1), join(contexts))
    for k, context in enumerate(contexts):
        alone, _ = model(noised[:, 8 * k : 8 * k + 8], context)
        torch.testing.assert_close(folded.unflatten(0, (2, 4))[:, k], alone, rtol=1e-5, atol=1e-5)


def test_a_look_without_gradients_does_not_cut_those_of_what_is_remembered_next() -> None:
    """Rows that are remembered as the model would have written them are first looked at so."""
    found = []
    for looked in (False, True):
        model, text = toys.eco(), toys.ids(2, 16)
        model.requires_grad_(True)
        context = model(text[:, :8], model.begin("memory", 2, 16), rows=NONE)[1]
        if looked:
            with torch.no_grad():
                model(text[:, 8:], context)
        _, context = model(text[:, 8:], context, rows=NONE)
        context.layers[-1].bank.sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    plain, after = found
    assert plain.keys() == after.keys()
    for name, grad in plain.items():
        torch.testing.assert_close(after[name], grad)


def test_decoding_asks_each_layer_once_what_it_remembers() -> None:
    model, text = toys.eco(), toys.ids(1, 8)
    with torch.no_grad():
        context = model(text, model.begin("memory", 1, 16), rows=NONE)[1]
        first = context.recall(model.layers)
        assert all(a is b for a, b in zip(first, context.recall(model.layers), strict=True))


def test_no_token_of_a_block_leaks_into_the_memory_it_is_denoised_against() -> None:
    model, text = toys.eco(), toys.ids(1, 32)
    other = text.clone()
    other[:, 16:] = toys.ids(1, 16, seed=7)
    for a, b in zip(chain(model, text, 8)[:3], chain(model, other, 8)[:3], strict=True):
        for mine, theirs in zip(a.layers, b.layers, strict=True):
            assert torch.equal(mine.bank, theirs.bank) and torch.equal(mine.halo, theirs.halo)


def test_memory_has_the_same_size_whatever_the_length() -> None:
    model = toys.eco()

    def size(context) -> int:
        return sum(m.bank.numel() + m.halo.numel() for m in context.layers)

    contexts = chain(model, toys.ids(1, 320), 8)
    assert size(contexts[1]) == size(contexts[-1])


def test_the_bank_reaches_further_back_than_the_halo() -> None:
    model, text = toys.eco(), toys.ids(1, 64)
    other = text.clone()
    other[:, :8] = toys.ids(1, 8, seed=7)
    a, b = chain(model, text, 8)[-1], chain(model, other, 8)[-1]
    block = toys.ids(1, 8, seed=3)
    assert (model(block, a)[0] - model(block, b)[0]).abs().max() > 1e-4


def test_the_halo_is_the_end_of_the_text_however_it_was_cut() -> None:
    """Convolution alone: the halo of the first layer depends on the last tokens only, not on the block grid."""
    model, text = toys.eco(local_attn_layers=()), toys.ids(1, 32)
    small, large = chain(model, text, 2)[-1], chain(model, text, 16)[-1]
    torch.testing.assert_close(small.layers[0].halo, large.layers[0].halo)


def test_contexts_are_values() -> None:
    model, text = toys.eco(), toys.ids(1, 16)
    first = chain(model, text, 8)[1]
    before, _ = model(text[:, 8:], first)
    model(toys.ids(1, 8, seed=4), first, rows=NONE)
    torch.testing.assert_close(model(text[:, 8:], first)[0], before, rtol=0, atol=0)


def test_rows_can_be_taken_from_a_memory() -> None:
    model = toys.eco()
    both = chain(model, toys.ids(2, 16), 8)[-1]
    block = toys.ids(1, 8, seed=3)
    swapped, _ = model(block.expand(2, -1), both.take(torch.tensor([1, 0])))
    plain, _ = model(block.expand(2, -1), both)
    torch.testing.assert_close(swapped.flip(0), plain)
