"""SEDAC in the loop: probes reach the layers, what is remembered stays whole, files belong to weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.model.soft_exit import importance
from diffulex_edge.runtime.cascading import Cascading
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.depth import ConstantDepth
from diffulex_edge.runtime.early_exit import SedacExit, nearest_kind
from diffulex_edge.runtime.exit_file import open_exits, promise, read_probes, write_exits
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.step import Step
from diffulex_edge.sedac.probe import WIDTH, Probe
from diffulex_edge.tests import toys

PROMPT = [list(range(5, 21))]
PLAN = Plan(max_new_tokens=16, block_size=8, steps=4)


def says(risk: float, width: int = 32) -> Probe:
    """A probe that always says the same."""
    logit = torch.logit(torch.tensor(risk))
    inward, bias, outward = torch.zeros(WIDTH, width + 2), torch.zeros(WIDTH), torch.zeros(WIDTH)
    return Probe(inward=inward, bias=bias, outward=outward, offset=logit)


def exits(risk: float, scale: float = 0.5, **changes: Any) -> SedacExit:
    return Cascading(**changes).exits({0: says(risk), 1: says(risk)}, scale)


def texts(model: Any, plan: Plan) -> list[list[int]]:
    return finish(decode(model, PROMPT, plan)).tokens


def test_the_toys_have_the_width_that_these_probes_have() -> None:
    assert toys.eco().config.d_model == 32 and toys.eco().spec.n_layers == 3


def test_risks_above_the_thresholds_change_nothing_at_all() -> None:
    model = toys.eco()
    assert texts(model, replace(PLAN, exit=exits(0.9))) == texts(model, PLAN)


def test_when_no_token_has_a_risk_a_look_ends_behind_the_first_checkpoint() -> None:
    model = toys.eco()
    ended = texts(model, replace(PLAN, exit=exits(1e-6)))
    assert ended == texts(model, replace(PLAN, depth=ConstantDepth(1)))
    assert ended != texts(model, PLAN)


def one_step() -> Step:
    ones = torch.ones(1)
    return Step(index=0, steps=1, t=ones, s=ones * 0, depth=3, quota=ones.long(), last=ones.bool())


def look(shares: Callable[[int], float], hidden: torch.Tensor, **changes: Any) -> Any:
    """The first answer of an exit whose probe gives column i of the block the risk shares(i)."""
    risks = torch.tensor([[shares(i) for i in range(hidden.shape[1])]])
    controller = exits(0.5, **changes)
    of_columns: Any = {0: lambda x, masked, t, last: risks, 1: lambda x, masked, t: risks}
    block = torch.arange(hidden.shape[1])[None]
    return replace(controller, probes=of_columns).start(block, hidden, one_step())(
        0, torch.zeros(1, hidden.shape[1], 32)
    )


def test_a_token_that_exits_keeps_what_its_confidence_leaves_and_shown_ones_keep_the_most() -> None:
    hidden = torch.tensor([[True, True, False]])
    keep = look(lambda i: (0.0, 0.9, 0.0)[i], hidden)
    # conf 1 at weight 0.5: C = 0.5, ratio 0.5, and half of the channels is a level of quarters
    assert keep.share.tolist() == [[0.5, 1.0, 1.0]]
    hard = look(lambda i: (0.0, 0.9, 0.0)[i], hidden, soft=False)
    assert hard.share.tolist() == [[0.0, 1.0, 1.0]]


def test_only_hidden_tokens_decide_whether_the_layers_end() -> None:
    keep = look(lambda i: (0.0, 0.0, 0.9)[i], torch.tensor([[True, True, False]]))
    assert not keep.share.any()
    going = look(lambda i: (0.0, 0.0, 0.9)[i], torch.tensor([[True, True, False]]), ends=False)
    assert going.share.tolist() == [[0.5, 0.5, 0.5]]
    assert look(lambda i: 0.9, torch.tensor([[True, True, False]])) is None


def test_a_token_goes_by_the_kind_of_what_is_shown_before_it_or_else_behind_it() -> None:
    kinds = torch.tensor([0, 1, 2])  # of ids 0, 1, 2
    block, hidden = torch.tensor([[0, 9, 1, 0, 9, 2, 9], [0, 9, 9, 0, 0, 0, 9]]) % 9, torch.zeros(2, 7).bool()
    hidden[:, [1, 4, 6]] = True
    assert nearest_kind(kinds, block, hidden).tolist() == [[1, 1, 1, 1, 1, 2, 2], [0] * 7]


def test_routes_are_multiples_of_the_threshold_near_tokens_of_a_kind() -> None:
    kinds, hidden = torch.tensor([1, 0, 2, 0]), torch.tensor([[False, True, False, True]])
    plain = look(lambda i: 0.6, hidden, ends=False)
    assert plain is None  # the threshold is 0.5
    routed = replace(exits(0.5, ends=False), routes=torch.tensor([1.0, 1.0, 4.0]), kinds=kinds)
    risks: Any = {i: lambda x, masked, t, last: torch.full((1, 4), 0.6) for i in (0, 1)}
    keep = replace(routed, probes=risks).start(torch.arange(4)[None], hidden, one_step())(0, torch.zeros(1, 4, 32))
    assert keep is not None and keep.share[0, 1] == 1 > keep.share[0, 3]  # behind id 2 it is 2
    with pytest.raises(UsageError, match="does not know"):
        Cascading(routes=(1.0, 2.0)).exits({0: says(0.5)}, 0.5)
    with pytest.raises(UsageError, match="3 numbers above 0"):
        Cascading(routes=(1.0, 2.0)).exits({0: says(0.5)}, 0.5, kinds)


def test_confidence_fades_faster_the_more_is_hidden() -> None:
    hidden, block = torch.tensor([[True, False, True, False]]), torch.arange(4)[None]
    states = []
    for changes in ({"fade": 0.4}, {"decay": 0.9 * (1 - 0.4 * 0.5)}, {}):
        seen = exits(0.4, exit_confidence=9.0, **changes).start(block, hidden, one_step())
        for layer in (0, 1):
            seen(layer, torch.zeros(1, 4, 32))
        states.append(seen.state.confidence)
    assert torch.allclose(states[0], states[1]) and (states[0] < states[2]).all()
    with pytest.raises(UsageError, match="between 0 and 1"):
        exits(0.5, fade=1.5)


def test_each_checkpoint_may_have_a_weight_of_its_own() -> None:
    weights = [config.confidence_weight for config in exits(0.5, weights=(0.2, 0.7)).controller.layer_configs]
    assert weights == [0.2, 0.7]
    with pytest.raises(UsageError, match="2 numbers"):
        exits(0.5, weights=(0.2,))


def test_probes_and_checkpoints_have_to_be_the_same_layers() -> None:
    with pytest.raises(UsageError, match="checkpoints"):
        replace(exits(0.5), probes={0: says(0.5)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, x = toys.eco(), toys.ids(2, 16)
    orders = [w.argsort(descending=True) for w in importance(model.layers, lambda: model(x))]
    write_exits(tmp_path / "exits", model, {0: says(0.01), 1: says(0.01)}, orders, {"layers": []})
    return tmp_path / "exits"


def test_a_folder_gives_the_exits_that_its_calibration_allows(folder: Path) -> None:
    with pytest.raises(UsageError, match="calibrate"):
        open_exits(folder, toys.eco())
    promise(folder, {"scale": 0.5}, Cascading(decay=0.8))
    model = toys.eco()
    found = open_exits(folder, model)
    assert found is not None
    assert found.controller.confidence_decay == 0.8
    assert set(found.controller.thresholds.values()) == {0.5}
    torch.testing.assert_close(model(toys.ids(1, 16))[0], toys.eco()(toys.ids(1, 16))[0], rtol=1e-5, atol=1e-5)
    promise(folder, {"scale": None}, Cascading())
    assert open_exits(folder, toys.eco()) is None


def test_another_model_s_folder_is_refused(folder: Path) -> None:
    other = toys.eco()
    other.layers[0].ff.down.weight.data[0, 0] += 1
    with pytest.raises(UsageError, match="other weights"):
        read_probes(folder, other)


@pytest.mark.parametrize("name", ["sedac.json", "probes.safetensors"])
def test_a_flipped_bit_is_noticed_and_the_file_named(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    for at in range(0, len(data), len(data) // 60):
        damaged = bytearray(data)
        damaged[at] ^= 4
        (folder / name).write_bytes(damaged)
        with pytest.raises(ArtefactError, match=name):
            read_probes(folder, toys.eco())
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtefactError, match=name):
        read_probes(folder, toys.eco())
