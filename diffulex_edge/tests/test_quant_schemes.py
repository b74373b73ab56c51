"""Schemes: each gives numbers of its own, those of a fake quantisation in numpy; what does not fit is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import NONE
from diffulex_edge.model.eco_hybrid import EcoHybrid, EcoHybridConfig
from diffulex_edge.model.fast_dllm_v2_edge import FastdLLMV2Edge, FastdLLMV2EdgeConfig
from diffulex_edge.model.sdar_edge import SDAREdge, SDAREdgeConfig
from diffulex_edge.model.transformer import TransformerConfig, TransformerDenoiser
from diffulex_edge.quant import SCHEMES, calibrating, find_scheme, quantize
from diffulex_edge.quant.calibration import linears
from diffulex_edge.quant.embedding import QuantizedEmbedding, pack, unpack

pytest.importorskip("torchao")
INTEGER = [name for name, scheme in SCHEMES.items() if not scheme.cast]
SIZE: dict[str, Any] = {"vocab_size": 96, "mask_id": 3, "d_model": 64, "n_layers": 2, "d_ff": 96}


def _random(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.15 + ("norm" in name))
    return model.eval().requires_grad_(False)


def _eco() -> Any:
    return _random(EcoHybrid(EcoHybridConfig(**SIZE, n_heads=2, head_dim=32, memory_slots=4, local_attn_layers=(1,))))


QWEN: dict[str, Any] = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
MODELS: dict[str, Callable[[], Any]] = {
    "eco_hybrid": _eco,
    "transformer": lambda: _random(TransformerDenoiser(TransformerConfig(**SIZE, n_heads=2, block_length=8))),
    "sdar": lambda: _random(SDAREdge(SDAREdgeConfig(**QWEN, block_size=8))),
    "fast_dllm": lambda: _random(FastdLLMV2Edge(FastdLLMV2EdgeConfig(**QWEN, bd_size=8))),
}
IDS = torch.randint(4, 90, (2, 16), generator=torch.Generator().manual_seed(0))


def _logits(model) -> Tensor:  # type: ignore[no-untyped-def]
    """Of the second block of 8, half hidden, in the model's best context."""
    _, context = model(IDS[:, :8], model.begin(next(iter(model.spec.contexts)), 2, 16), rows=NONE)
    block = IDS[:, 8:].clone()
    block[:, ::2] = model.spec.mask_id
    return model(block, context)[0].float()


def _seen(model):  # type: ignore[no-untyped-def]
    with calibrating(model) as seen:
        _logits(model)
    return seen


@pytest.mark.parametrize("family", MODELS)
def test_schemes_differ_from_each_other_and_from_fp32_and_leave_the_model_alone(family: str) -> None:
    model = MODELS[family]()
    before, plain = {k: v.clone() for k, v in model.state_dict().items()}, _logits(model)
    seen = _seen(model)
    found = {name: _logits(quantize(model, scheme, seen)) for name, scheme in SCHEMES.items()}
    distinct = [plain, *found.values()]
    for i, one in enumerate(distinct):
        assert not any(torch.equal(one, other) for other in distinct[:i])
    error = {name: float((found[name] - plain).norm() / plain.norm()) for name in found}
    assert max(error[name] for name in ("dynamic_int8", "static_int8", "weight_only_int8", "bf16", "fp16")) < 0.1
    assert error["weight_only_int8"] < error["dynamic_int8"] < error["dynamic_int4"] < 0.5
    assert torch.equal(_logits(model), plain)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)


def _fake_weight(w: np.ndarray, bits: int, group: int | None) -> np.ndarray:
    """Rounds a row by its greatest in 8 bits; a group in 4 by that of nine scales, in bf16, that errs least."""
    found = np.empty_like(w)
    for row, out in zip(w.reshape(-1, group or w.shape[1]), found.reshape(-1, group or w.shape[1]), strict=True):
        best = np.inf
        for part in [1.0] if bits == 8 else np.linspace(0.6, 1, 9):
            high = 2 ** (bits - 1) - 1
            scale: Any = np.float32(np.abs(row).max() * (np.float32(part) / high))
            scale = torch.tensor(scale).bfloat16().float().numpy() if group else scale
            rounded = np.clip(np.round(row / scale), -high - (bits == 4), high) * scale
            if (error := ((rounded - row) ** 2).sum()) < best - 1e-12:
                best, out[:] = error, rounded
    return found


def _fake_tokens(x: np.ndarray) -> np.ndarray:
    """A range for each token, from its least to its greatest, zero included."""
    low, high = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
    scale = (high - low) / 255
    zero = np.clip(np.round(-128 - low / scale), -128, 127)
    return (np.clip(np.round(x / scale) + zero, -128, 127) - zero) * scale


def _fake_range(x: np.ndarray, low: float, high: float) -> np.ndarray:
    scale = (max(high, 0) - min(low, 0)) / 255
    zero = np.round(-128 - min(low, 0) / scale)
    return (np.clip(np.round(x / scale) + zero, -128, 127) - zero) * scale


@pytest.mark.parametrize("name", INTEGER)
def test_a_layer_computes_what_a_fake_quantisation_in_numpy_does(name: str) -> None:
    model, scheme = _eco(), SCHEMES[name]
    seen = _seen(model)
    made = quantize(model, scheme, seen)
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(5))
    layer = "layers.1.ff.gate_up"
    w, got = model.get_submodule(layer).weight.numpy(), made.get_submodule(layer)(x)
    weight, inputs = _fake_weight(w, scheme.weight_bits, scheme.group), x.numpy()
    if scheme.calibrated:
        ends, out = seen.inputs[layer], seen.outputs[layer]
        want = _fake_range(_fake_range(inputs, ends.low, ends.high) @ weight.T, out.low, out.high)
    else:
        want = (_fake_tokens(inputs) if scheme.activation_bits else inputs) @ weight.T
    step = np.abs(want).max() / 127  # static outputs may round to the other side
    np.testing.assert_allclose(got.numpy(), want, atol=2 * step if scheme.calibrated else 2e-4)
    if scheme.calibrated:
        assert (np.abs(got.numpy() - want) > 1e-4).mean() < 0.02


@pytest.mark.parametrize("bits", [8, 4])
def test_the_embedding_is_rounded_row_by_row_or_in_groups(bits: int) -> None:
    model = _eco()
    made = quantize(model, find_scheme("dynamic_int8", embedding_bits=bits))
    w = model.ends.tokens.weight.numpy()
    want = _fake_weight(w, bits, 32 if bits == 4 else None)
    np.testing.assert_allclose(made.ends.tokens(IDS).numpy(), want[IDS.numpy()], atol=1e-6)
    assert made.ends.tokens.codes.nbytes == w.size * bits // 8


def test_packed_integers_come_back() -> None:
    codes = torch.arange(-8, 8, dtype=torch.int8).repeat(3, 2)
    assert torch.equal(unpack(pack(codes)), codes.float())


@pytest.mark.parametrize("family", MODELS)
def test_no_full_precision_copy_of_ends_or_layers_is_kept(family: str) -> None:
    model = MODELS[family]()
    made = quantize(model, SCHEMES["dynamic_int8"])
    assert isinstance(made.ends.tokens, QuantizedEmbedding)
    assert type(made.ends.head.weight).__name__ == "IntxUnpackedToInt8Tensor"
    large = [n for n, p in made.named_parameters() if type(p) is nn.Parameter and p.ndim > 1 and p.numel() > 64 * 8]
    assert large == []
    assert set(linears(made)) == set(linears(model)) | {"ends.head"}


def test_the_copy_shares_no_memory_with_the_model() -> None:
    model = _eco()
    plain = {p.data_ptr() for p in model.parameters()}
    for name in ("dynamic_int8", "bf16"):
        made = quantize(model, find_scheme(name, embedding_bits=None if name == "bf16" else 32))
        assert not plain & {p.data_ptr() for p in made.parameters() if type(p) is nn.Parameter}


def test_a_calibrated_model_computes_as_before_and_keeps_no_hooks() -> None:
    model = _eco()
    plain = _logits(model)
    with calibrating(model):
        assert torch.equal(_logits(model), plain)
    assert model.ends.head is None
    assert not any(m._forward_hooks for m in model.modules())


def test_what_does_not_fit_is_told_with_its_value() -> None:
    odd = TransformerDenoiser(TransformerConfig(**{**SIZE, "d_ff": 100}, n_heads=2))
    cases = {
        r"'int7' is not one of dynamic_int8, static_int8, .*fp16": lambda: find_scheme("int7"),
        r"embedding_bits=3 is not one of 4, 8, 32": lambda: find_scheme("dynamic_int8", embedding_bits=3),
        r"group=48 is not a multiple of 32": lambda: find_scheme("dynamic_int4", group=48),
        r"group=64: dynamic_int8 has one scale a row": lambda: find_scheme("dynamic_int8", group=64),
        r"group=32 does not divide the rows of layers.0.ff.down \(100\), layers.1.ff.down \(100\):": lambda: quantize(
            odd, SCHEMES["dynamic_int4"]
        ),
        r"static_int8 needs a calibration": lambda: quantize(_eco(), SCHEMES["static_int8"]),
        r"has been quantised": lambda: quantize(quantize(_eco(), SCHEMES["dynamic_int8"]), SCHEMES["dynamic_int8"]),
        r"no layer lm_tail; its layers are": lambda: quantize(
            _eco(), SCHEMES["dynamic_int8"], weights_only=("lm_tail",)
        ),
    }
    for said, call in cases.items():
        with pytest.raises(UsageError, match=said):
            call()


def test_groups_of_another_length_are_those_asked_for() -> None:
    model = _random(TransformerDenoiser(TransformerConfig(**{**SIZE, "d_ff": 128}, n_heads=2)))
    made = quantize(model, find_scheme("weight_only_int4", group=64))
    assert made.layers[0].ff.gate_up.weight.scale.shape == (256, 1)
    assert made.layers[0].ff.gate_up.weight.scale.dtype == torch.bfloat16
