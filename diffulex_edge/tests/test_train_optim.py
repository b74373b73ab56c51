"""Optimisers: what Muon's step is, who gets which optimiser, and the curve of the learning rate."""

from __future__ import annotations

import pytest
import torch

from diffulex_edge.errors import UsageError
from diffulex_edge.tests import toys
from diffulex_edge.train.optim import Ema, Muon, OptimConfig, learning_rate, optimizers, orthogonalise


@pytest.mark.parametrize("shape", [(2, 16, 16), (1, 8, 32), (3, 32, 8)])
def test_orthogonalise_brings_singular_values_near_one_and_keeps_directions(shape: tuple[int, int, int]) -> None:
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    o = orthogonalise(g)
    values = torch.linalg.svdvals(o)
    assert values.min() > 0.3 and values.max() < 1.3
    assert (o * (u @ vh)).sum((1, 2)).min() > 0.7 * min(shape[1:])


def test_muons_first_step_is_the_orthogonal_matrix_times_the_learning_rate() -> None:
    p = torch.zeros(8, 4, requires_grad=True)
    p.grad = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    Muon([p], lr=0.1).step()
    torch.testing.assert_close(p.detach(), -0.1 * 2**0.5 * orthogonalise(p.grad[None])[0], rtol=1e-3, atol=1e-4)


def test_matrices_of_one_shape_step_as_they_would_alone() -> None:
    grads = [torch.randn(6, 6, generator=torch.Generator().manual_seed(s)) for s in range(3)]

    def stepped(which: list[int]) -> list[torch.Tensor]:
        params = [torch.zeros(6, 6, requires_grad=True) for _ in which]
        for p, i in zip(params, which, strict=True):
            p.grad = grads[i]
        Muon(params, lr=0.1).step()
        return [p.detach() for p in params]

    for together, alone in zip(stepped([0, 1, 2]), [stepped([i])[0] for i in range(3)], strict=True):
        torch.testing.assert_close(together, alone)


def test_muon_refuses_a_vector() -> None:
    with pytest.raises(UsageError, match="matrices only"):
        Muon([torch.zeros(3, requires_grad=True)], lr=0.1)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_every_parameter_has_exactly_one_optimiser(name: str) -> None:
    model = toys.eco().requires_grad_(True)
    held = [p for o in optimizers(model, OptimConfig(optimizer=name)) for g in o.param_groups for p in g["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))


def test_muon_gets_hidden_matrices_and_neither_embedding_nor_taps_nor_slots() -> None:
    model = toys.eco().requires_grad_(True)
    muon = optimizers(model, OptimConfig())[0]
    names = {id(p): name for name, p in model.named_parameters()}
    chosen = {names[id(p)] for g in muon.param_groups for p in g["params"]}
    assert "layers.0.ff.gate_up.weight" in chosen and "layers.2.write.kv.weight" in chosen
    assert not {"ends.tokens.weight", "layers.0.local.taps", "slots0", "layers.0.bank0"} & chosen


def test_the_learning_rate_warms_up_holds_and_falls_to_zero() -> None:
    config = OptimConfig(warmup_steps=10, decay_fraction=0.2)
    shares = [learning_rate(s, 1000, config) for s in range(1001)]
    assert shares[0] == pytest.approx(1 / 11) and shares[10] == 1.0 and shares[800] == 1.0
    assert shares[900] == pytest.approx(0.5) and shares[1000] == 0.0


def test_the_average_warms_up_so_that_a_short_run_does_not_ship_its_initialisation() -> None:
    model = toys.backup().requires_grad_(True)
    ema = Ema(model, 0.9999)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    for _ in range(100):
        ema.update(model)
    gap = max(float((ema.weights[name] - p).abs().max()) for name, p in model.named_parameters())
    assert gap < 0.01


@pytest.mark.parametrize(
    ("field", "value"), [("optimizer", "sgd"), ("lr", 0.0), ("muon_lr", float("nan")), ("ema_decay", 1.5)]
)
def test_nonsense_is_refused_with_the_value_and_the_rule(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        OptimConfig(**{field: value})  # type: ignore[arg-type]
