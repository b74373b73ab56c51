"""The ways in which memory takes in a block: what each keeps and for how long, and that the default is what it was."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from diffulex_edge.errors import UsageError
from diffulex_edge.model import checkpoint
from diffulex_edge.model.base import NONE
from diffulex_edge.model.eco_hybrid import EcoHybrid
from diffulex_edge.model.stack import run
from diffulex_edge.tests import toys
from diffulex_edge.train.objective import Moment, Objective, ObjectiveConfig

VARIANTS: dict[str, dict[str, Any]] = {
    "gated": {},
    "accumulate": {"memory_update": "accumulate", "memory_blocks": 3},
    "timescales": {"memory_timescales": (1.0, 0.5, 0.1)},
    "accumulate and carry": {"memory_update": "accumulate", "latent_self_cond": True},
}


@pytest.fixture(params=VARIANTS, ids=str)
def changes(request: pytest.FixtureRequest) -> dict[str, Any]:
    return VARIANTS[request.param]


def banks(model: Any, text: torch.Tensor, block: int = 8) -> list[torch.Tensor]:
    """The first layer's bank (B, M or J * M, D) before each block and after the last."""
    context = model.begin("memory", *text.shape)
    found = [context.layers[0].bank]
    for piece in text.split(block, 1):
        _, context = model(piece, context, rows=NONE)
        found.append(context.layers[0].bank)
    return found


def test_the_default_update_is_the_gate_of_the_formula() -> None:
    """Written out here once more, bit for bit: what was trained before there was a choice must not move."""
    model, text = toys.eco(), toys.ids(2, 8)
    layer, context = model.layers[0], model.begin("memory", 2, 16)
    _, saw = run(model.layers, model._flow(text, torch.zeros(2), None), context.recall(model.layers))
    old, new = context.layers[0].bank, layer.live_norm(saw[0].slots)
    z = torch.sigmoid(torch.nn.functional.linear(torch.cat((layer.bank_norm(old), new), -1), *layer.gate.parameters()))
    _, context = model(text, context, rows=NONE)
    assert torch.equal(context.layers[0].bank, torch.lerp(old, new, z))


def test_a_timescale_of_one_is_no_timescale() -> None:
    plain, paced = (banks(toys.eco(memory_timescales=z), toys.ids(2, 32)) for z in ((), (1.0,)))
    assert all(torch.equal(a, b) for a, b in zip(plain, paced, strict=True))


def test_an_accumulated_bank_is_the_last_blocks_memories_oldest_first() -> None:
    model = toys.eco(**VARIANTS["accumulate"])
    found = banks(model, toys.ids(2, 40))
    assert torch.equal(found[0], model.layers[0].bank0.repeat(3, 1).expand(2, -1, -1))
    for before, after in pairwise(found):
        assert torch.equal(after[:, :8], before[:, 4:]) and not torch.equal(after[:, 8:], before[:, 8:])


def test_a_trace_of_a_block_outlives_its_place_in_an_accumulated_bank() -> None:
    """Its own memory is gone after J blocks; what was written meanwhile had read it."""
    model, text = toys.eco(**VARIANTS["accumulate"]), toys.ids(1, 40)
    other = text.clone()
    other[:, :8] = toys.ids(1, 8, seed=9)
    differ = [(a - b).abs().amax(-1)[0] > 1e-6 for a, b in zip(banks(model, text), banks(model, other), strict=True)]
    assert differ[1].tolist() == [False] * 8 + [True] * 4  # J = 3 places of M = 4 slots
    assert all(d.any() for d in differ[1:])


def test_slow_slots_change_slowly() -> None:
    """M = 4 slots take the three paces in turn; the gates are learned alike, so the shares are those of the paces."""
    model, even = toys.eco(**VARIANTS["timescales"]), toys.eco()
    text = toys.ids(4, 8)
    start, after = banks(model, text)
    _, plain = banks(even, text)
    torch.testing.assert_close(after - start, (plain - start) * torch.tensor([1.0, 0.5, 0.1, 1.0])[:, None])
    slow = toys.eco(memory_timescales=(1.0, 1.0, 1.0, 0.01))
    first, *_, last = banks(slow, toys.ids(4, 64))
    moved = (last - first).norm(dim=-1).mean(0)
    assert moved[3] < 0.2 * moved[:3].min()


def test_timescales_have_no_parameters_and_accumulation_has_no_gate() -> None:
    names = {key: dict(toys.eco(**each).named_parameters()).keys() for key, each in VARIANTS.items()}
    assert names["timescales"] == names["gated"]
    assert names["gated"] - names["accumulate"] == {
        f"layers.{i}.gate.{n}" for i in range(3) for n in ("weight", "bias")
    }
    assert not set(toys.eco(**VARIANTS["timescales"]).state_dict()) - names["timescales"]


def test_memory_has_the_same_size_from_the_first_block_on(changes: dict[str, Any]) -> None:
    model = toys.eco(**changes)
    assert len({bank.shape for bank in banks(model, toys.ids(1, 320))}) == 1


def test_training_reaches_every_parameter(changes: dict[str, Any]) -> None:
    """From fresh weights, whose projections are zero: within a few steps nothing may stay dead."""
    torch.manual_seed(0)
    model, reached = EcoHybrid(replace(toys.ECO, **changes)), set()
    config = ObjectiveConfig(full_share=0, block_share=0, frozen_share=1, full_only=0, block_sizes=(8,), shallow=0)
    objective, optimizer = Objective(config, None, model.spec), torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(8):
        optimizer.zero_grad()
        parts = objective(model, toys.ids(4, 32, seed=step), Moment(0.5, torch.Generator().manual_seed(step)))
        torch.stack([loss for loss, _ in parts]).sum().backward()
        reached |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    assert not set(dict(model.named_parameters())) - reached


def test_a_checkpoint_of_it_is_the_same_model(changes: dict[str, Any], tmp_path: Path) -> None:
    model, folder = toys.eco(**changes), tmp_path / "step-00000001"
    config = checkpoint.model_config("eco_hybrid", model.config, "fingerprint")
    weights = checkpoint.tensors(dict(model.named_parameters()))
    checkpoint.write(folder, {"model.safetensors": weights, "config.json": checkpoint.document(config)})
    loaded, _ = checkpoint.load_model(folder)
    assert loaded.config == model.config
    for mine, theirs in zip(banks(model, toys.ids(2, 32)), banks(loaded, toys.ids(2, 32)), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"memory_update": "overwrite"}, "'overwrite' is not one of gated, accumulate"),
     ({"memory_blocks": 0}, "memory_blocks=0"),
     ({"memory_timescales": (1.0, 0.0)}, "above 0"),
     ({"memory_timescales": (1.5,)}, "at most 1"),
     ({"memory_update": "accumulate", "memory_timescales": (0.5,)}, "has not")],
)  # fmt: skip
def test_nonsense_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(toys.ECO, **changes)
