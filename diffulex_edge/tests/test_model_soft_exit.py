"""Feed-forwards of fewer channels: the staircase is the mask without its arithmetic, and sorting changes nothing."""

from __future__ import annotations

import pytest
import torch

from diffulex_edge.model.layers import SwiGLU
from diffulex_edge.model.soft_exit import FEW, importance, masked, sort_channels, staircase
from diffulex_edge.tests import toys


def feed_forward() -> SwiGLU:
    torch.manual_seed(0)
    ff = SwiGLU(12, 24)
    torch.nn.init.normal_(ff.down.weight)
    return ff.requires_grad_(False)


@pytest.mark.parametrize("n", [FEW, 40])
def test_the_staircase_gives_what_the_mask_gives_token_by_token(n: int) -> None:
    ff, x = feed_forward(), torch.randn(2, n // 2, 12)
    share = torch.randint(0, 5, (2, n // 2)) / 4
    torch.testing.assert_close(staircase(ff, x, share), masked(ff, x, share), rtol=1e-5, atol=1e-5)


def test_shares_that_are_no_whole_channels_are_rounded_up() -> None:
    ff, x = feed_forward(), torch.randn(1, 32, 12)
    share = torch.linspace(0, 1, 32)[None]
    torch.testing.assert_close(staircase(ff, x, share), masked(ff, x, share), rtol=1e-5, atol=1e-5)


def test_few_tokens_all_keep_as_much_as_the_one_that_keeps_most() -> None:
    ff, x = feed_forward(), torch.randn(1, FEW - 1, 12)
    share = torch.zeros(1, FEW - 1)
    share[0, 3] = 0.5
    torch.testing.assert_close(staircase(ff, x, share), masked(ff, x, share.new_full(share.shape, 0.5)))


def test_keeping_all_is_the_dense_feed_forward_bit_for_bit() -> None:
    ff, x = feed_forward(), torch.randn(2, 20, 12)
    assert torch.equal(staircase(ff, x, torch.ones(2, 20)), ff(x))
    assert not staircase(ff, x, torch.zeros(2, 20)).any()


def test_sorted_channels_compute_the_same_and_the_important_come_first() -> None:
    model, x = toys.eco(), toys.ids(2, 16)
    before, _ = model(x)
    found = importance(model.layers, lambda: model(x))
    assert len(found) == len(model.layers) and all(bool((i > 0).all()) for i in found)
    sort_channels(model.layers, [i.argsort(descending=True) for i in found])
    torch.testing.assert_close(model(x)[0], before, rtol=1e-5, atol=1e-5)
    again = importance(model.layers, lambda: model(x))
    assert all(bool((i.diff() <= i.max() * 1e-6).all()) for i in again)


def test_importance_leaves_no_hook_behind_even_if_the_look_fails() -> None:
    model = toys.eco()

    def fails() -> None:
        raise RuntimeError("no text")

    with pytest.raises(RuntimeError, match="no text"):
        importance(model.layers, fails)
    assert not any(layer.ff.down._forward_pre_hooks for layer in model.layers)
