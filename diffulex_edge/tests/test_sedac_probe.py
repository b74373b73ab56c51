"""Probes learn what can be learned, keep out of what they were not made for, and rank as AUROC says."""

from __future__ import annotations

import pytest
import torch

from diffulex_edge.errors import UsageError
from diffulex_edge.sedac.probe import Probe, auroc, fit


def tokens(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States whose third number decides, in two moments of a block."""
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    masked = torch.arange(n) % 2 * 1.0
    return x, masked, (x[:, 2] > 0.5) & (masked > 0.5)


def test_a_probe_finds_what_decides() -> None:
    x, masked, changed = tokens(4000, 0)
    probe = fit(x, masked, masked, changed)
    x, masked, changed = tokens(1000, 1)
    risk = probe(x, masked, masked)
    assert auroc(risk, changed) > 0.95
    assert abs(float(risk.mean()) - float(changed.float().mean())) < 0.05


def test_a_probe_finds_nothing_where_there_is_nothing() -> None:
    x, masked, _ = tokens(2000, 0)
    noise = torch.rand(2000, generator=torch.Generator().manual_seed(5)) < 0.3
    probe = fit(x, masked, masked, noise)
    x, masked, _ = tokens(2000, 1)
    fresh = torch.rand(2000, generator=torch.Generator().manual_seed(6)) < 0.3
    assert abs(auroc(probe(x, masked, masked), fresh) - 0.5) < 0.05


def test_a_probe_comes_back_from_its_tensors_and_fits_one_width() -> None:
    x, masked, changed = tokens(100, 0)
    probe = fit(x, masked, masked, changed, epochs=1)
    again = Probe.of(probe.tensors(), 8)
    assert torch.equal(again(x, masked, masked), probe(x, masked, masked))
    with pytest.raises(UsageError, match="states of 9 numbers"):
        Probe.of(probe.tensors(), 9)
    with pytest.raises(UsageError, match="both kinds"):
        fit(x, masked, masked, torch.zeros(100, dtype=torch.bool))


def test_auroc_counts_pairs_and_ties_half() -> None:
    score, changed = torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([False, True, False, True])
    assert auroc(score, changed) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    with pytest.raises(UsageError, match="AUROC"):
        auroc(score, torch.ones(4, dtype=torch.bool))
