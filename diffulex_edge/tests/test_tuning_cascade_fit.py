"""A cascade learned end to end: its arithmetic is the controller's, and it finds what was put into made-up states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffulex_edge.sedac.controller import CascadeController, LayerConfig
from diffulex_edge.tuning.cascade_fit import confidence, learn_cascade
from diffulex_edge.tuning.states import LayerStates, States

CHANGES = 0.2  # share of tokens


def reads_first(x: Tensor, masked: Tensor, t: Tensor, last: Tensor | None = None) -> Tensor:
    """A probe whose risk is the first number of a state."""
    return x[..., 0]


def made_up(n: int, seed: int) -> States:
    """Behind layer 1 the risk is chance; behind 2 it tells, and near tokens of kind 2 it reads four times as high."""
    generator = torch.Generator().manual_seed(seed)
    changed = torch.rand(n, generator=generator) < CHANGES
    kind = torch.randint(3, (n,), generator=generator)
    told = (torch.where(changed, 0.3, 0.1) + 0.05 * torch.randn(n, generator=generator)).clamp(min=0.01)
    told = torch.where(kind == 2, 4 * told, told)
    risks = {1: torch.rand(n, generator=generator) * 0.4, 2: told}
    layers = {i: LayerStates(x=risk[:, None], changed=changed, free={}) for i, risk in risks.items()}
    return States(layers=layers, masked=torch.rand(n, generator=generator), t=risks[1], kind=kind, document=kind)


def test_confidence_is_what_the_controller_gathers() -> None:
    generator = torch.Generator().manual_seed(0)
    risk = torch.rand(500, 3, generator=generator)
    weights = (0.3, 0.4, 0.2)
    numbers = {"weights": torch.tensor(weights), "decay": torch.tensor(0.8), "fade": torch.tensor(0.0)}
    found = confidence(risk, torch.ones(500), torch.zeros(500).long(), 0.7, {**numbers, "routes": torch.ones(1)})
    layers = [LayerConfig(i, 0.5, 0.7, w, exit_confidence=float("inf")) for i, w in enumerate(weights)]
    told = CascadeController(layers, confidence_decay=0.8).evaluate_batch(risk.numpy())
    assert torch.allclose(found[:, -1], torch.from_numpy(told.accumulated_confidence), atol=1e-6)


def test_it_learns_which_checkpoint_to_trust_and_where_risks_read_high() -> None:
    probes: dict[int, Any] = {1: reads_first, 2: reads_first}
    found = learn_cascade(made_up(4000, 0), made_up(4000, 1), probes, 2)
    numbers = found["numbers"]
    assert numbers["weights"][1] > 1.5 * numbers["weights"][0]
    assert numbers["routes"][2] > 1.5 * numbers["routes"][1] > 0
    assert found["auroc"]["learned"] > found["auroc"]["default"] + 0.02
    assert 0 < numbers["decay"] < 1 and 0 < numbers["fade"] < 1
