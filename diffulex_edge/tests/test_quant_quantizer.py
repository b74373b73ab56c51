"""Seed 003's quantiser and observers, and the walk that static ranges are seen on."""

from __future__ import annotations

import pytest
import torch

from diffulex_edge.errors import UsageError
from diffulex_edge.quant import DiffuLexQuantizer, QuantizationConfig, QuantizationMode, QuantizationScheme
from diffulex_edge.quant.calibration import calibrating
from diffulex_edge.quant.observers import (
    Covering,
    MinMax,
    MovingAverage,
    Range,
    get_default_observers,
    get_dynamic_quant_observers,
    get_moving_average_observers,
    get_per_channel_observers,
)
from diffulex_edge.quant.static import SHARES, replay
from diffulex_edge.tests.test_quant_schemes import IDS, _eco, _logits

pytest.importorskip("torchao")


def test_min_max_covers_all_that_was_seen_and_zero() -> None:
    seen = MinMax()
    for piece in ([1.0, 3.0], [2.0, 5.1]):
        seen.observe(torch.tensor(piece))
    assert seen.range() == Range(seen.range().scale, -128)
    assert seen.range().scale == pytest.approx(5.1 / 255)
    seen.observe(torch.tensor([-5.1]))
    assert seen.range().scale == pytest.approx(10.2 / 255)
    assert seen.range().zero in (-1, 0)


def test_moving_ends_follow_the_recurrence_of_a_moving_average() -> None:
    seen = MovingAverage(0.1)
    ends = [(-1.0, 4.0), (-3.0, 2.0), (0.0, 8.0)]
    low, high = ends[0]
    for one in ends:
        seen.observe(torch.tensor(one))
    for a, b in ends[1:]:
        low, high = 0.9 * low + 0.1 * a, 0.9 * high + 0.1 * b
    assert (seen.low, seen.high) == pytest.approx((low, high))


def test_covering_leaves_out_its_share_on_either_side() -> None:
    seen = Covering(0.01)
    seen.observe(torch.arange(-500, 500).float())
    assert seen.range().scale == pytest.approx((489 + 490) / 255)


def test_observers_of_seed_003_are_what_their_names_say() -> None:
    weight = torch.tensor([[1.0, -2.0], [0.5, 0.25]])
    assert get_default_observers().weight(weight).tolist() == [[pytest.approx(2 / 127)]] * 2
    assert get_per_channel_observers().weight(weight).flatten().tolist() == pytest.approx([2 / 127, 0.5 / 127])
    assert isinstance(get_moving_average_observers(0.5).activation(), MovingAverage)  # type: ignore[misc]
    assert get_dynamic_quant_observers().activation is None
    with pytest.raises(UsageError, match="look at no activations"), calibrating(_eco(), get_dynamic_quant_observers()):
        pass
    with pytest.raises(UsageError, match="has seen nothing"):
        MinMax().range()


def test_the_walk_hides_every_share_of_every_block_and_calls_every_layer() -> None:
    model = _eco()
    shares = []
    model.register_forward_pre_hook(lambda m, a: shares.append(float((a[0] == 3).float().mean())))
    with calibrating(model) as seen:
        assert replay(model, [torch.cat((IDS, IDS), 1)[0]] * 5, at_most=2) == 2
    assert all(any(abs(share - each) < 0.03 for each in shares) for share in (*SHARES, 0.0))
    names = {name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert set(seen.inputs) == names | {"ends.head"}
    with pytest.raises(UsageError, match="no text"):
        replay(model, [])


def test_the_quantiser_of_seed_003_prepares_calibrates_and_converts() -> None:
    model = _eco()
    model.layers[0].ff.gate_up.weight[0] *= 8  # a row that needs a scale of its own
    plain = _logits(model)
    quantiser = DiffuLexQuantizer(QuantizationConfig(mode=QuantizationMode.STATIC))
    with pytest.raises(UsageError, match="needs a calibration"):
        quantiser.convert(model)
    quantiser.calibrate(quantiser.prepare_for_quantization(model), [IDS.flatten()])
    found = {"static": _logits(quantiser.convert(model))}
    coarse = DiffuLexQuantizer(QuantizationConfig(mode=QuantizationMode.STATIC, is_per_channel=False))
    coarse.calibrate(model, [IDS.flatten()])
    found["one scale"] = _logits(coarse.convert(model))
    for mode in (QuantizationMode.DYNAMIC, QuantizationMode.WEIGHT_ONLY):
        found[mode.value] = _logits(DiffuLexQuantizer(QuantizationConfig(mode=mode)).convert(model))
    errors = {name: float((each - plain).norm()) for name, each in found.items()}
    assert len(set(errors.values())) == 4 and 0.0 not in errors.values()
    assert errors["static"] < errors["one scale"]
    with pytest.raises(UsageError, match="static_int4"):
        DiffuLexQuantizer(QuantizationConfig(mode=QuantizationMode.STATIC, scheme=QuantizationScheme.INT4))


def test_a_head_whose_activations_are_kept_is_rounded_in_its_weights_alone() -> None:
    model = _eco()
    kept = DiffuLexQuantizer().convert(model)
    all_of_it = DiffuLexQuantizer(QuantizationConfig(preserve_activation_precision_layers=())).convert(model)
    assert kept.ends.head.weight.activation_quantization is None
    assert all_of_it.ends.head.weight.activation_quantization is not None
    assert kept.layers[0].ff.down.weight.activation_quantization is not None
