"""The loss equals plain cross entropy, to the gradient; its weights give the NELBO, or the seed's mean."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diffulex_edge.diffusion.corruption import Corrupted
from diffulex_edge.diffusion.loss import divergence, masked_loss, mean_weight, nelbo_weight
from diffulex_edge.diffusion.schedule import Cosine, Linear

MASK = 3


def test_it_equals_cross_entropy_without_the_mask_column_and_so_does_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(700, 20, generator=generator, requires_grad=True)  # more rows than one chunk
    targets = torch.randint(4, 20, (700,), generator=generator)
    weight = torch.rand(700, generator=generator) * 5
    ours = masked_loss(logits * 1.0, targets, weight, MASK)
    (gradient,) = torch.autograd.grad(ours * 0.25, logits)
    banned = logits.index_fill(1, torch.tensor([MASK]), -torch.inf)
    plain = (F.cross_entropy(banned, targets, reduction="none") * weight).sum()
    (expected,) = torch.autograd.grad(plain * 0.25, logits)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(gradient, expected)


def test_logits_survive_where_no_gradient_is_wanted() -> None:
    logits = torch.randn(5, 20)
    before = logits.clone()
    with torch.no_grad():
        masked_loss(logits, torch.full((5,), 7), torch.ones(5), MASK)
    assert torch.equal(logits, before)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[0.0, 1e4, -1e4, 1e6, 50.0]])
    assert masked_loss(logits, torch.tensor([2]), torch.ones(1), MASK) == pytest.approx(2e4)


def test_the_weight_of_the_linear_schedule_is_one_over_t() -> None:
    masked = torch.tensor([[True, False, True], [False, True, False]])
    noised = Corrupted(torch.zeros(2, 3), masked, torch.tensor([0.5, 0.1]))
    torch.testing.assert_close(nelbo_weight(noised, Linear()), torch.tensor([2.0, 2.0, 10.0]))


def test_any_schedule_weighs_by_slope_over_rate() -> None:
    noised = Corrupted(torch.zeros(1, 1), torch.tensor([[True]]), torch.tensor([0.5]))
    torch.testing.assert_close(nelbo_weight(noised, Cosine()), torch.tensor([torch.pi / 2]))


def test_the_seeds_mean_of_masked_tokens() -> None:
    """Formula F6: CE values 1, 2, 3, 4 with mask 1, 0, 1, 0 give 2."""
    noised = Corrupted(torch.zeros(1, 4), torch.tensor([[True, False, True, False]]), torch.tensor([0.5]))
    ce = torch.tensor([1.0, 3.0])
    assert float((mean_weight(noised, Cosine()) * ce).sum() / 4) == 2.0


def test_the_divergence_is_that_of_the_distributions_without_the_mask() -> None:
    a, b = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)), torch.zeros(5, 9)
    weight = torch.arange(5.0)
    keep = [i for i in range(9) if i != 3]
    p = torch.distributions.Categorical(logits=a[:, keep])
    q = torch.distributions.Categorical(logits=b[:, keep])
    expected = (torch.distributions.kl_divergence(p, q) * weight).sum()
    torch.testing.assert_close(divergence(a, b, weight, 3), expected)
    assert divergence(a, a, weight, 3).abs() < 1e-6
