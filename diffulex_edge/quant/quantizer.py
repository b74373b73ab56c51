"""The model in another scheme: a new one, by torchao's tensors for the weights; and seed 003's names for it.

An integer scheme computes in fp32 between its layers. A head that was the embedding becomes a layer of its own, in the
bits of the weights, and the embedding is quantised once, in its own: neither is kept in full precision as well.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.quant.calibration import Calibration, calibrating, linears, round_around, rounds_inputs
from diffulex_edge.quant.embedding import QuantizedEmbedding
from diffulex_edge.quant.observers import Observers, get_default_observers, get_per_channel_observers
from diffulex_edge.quant.schemes import Scheme, find_scheme
from diffulex_edge.quant.static import replay
from diffulex_edge.quant.weights import need_torchao, rounded, rounded_by

HEAD = "ends.head"


def quantize(
    model: Any, scheme: Scheme, calibration: Calibration | None = None, *, weights_only: Collection[str] = ()
) -> Any:
    """A new model in the scheme, for inference; what is given stays as it is.

    model: a denoiser in floating point. calibration: what `calibrating` saw, for a scheme that needs it.
    weights_only: layers by name whose activations keep their precision, `ends.head` for example.
    Raises UsageError for a model that is no module of torch or has been quantised, a calibration that is missing, or
    rows that do not divide into groups; BackendUnavailable without torchao, which bf16 and fp16 do without.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"{type(model).__name__} is not a torch module: it cannot be converted to other number types")
    if scheme.cast:
        return copy.deepcopy(model).to(getattr(torch, scheme.cast)).requires_grad_(False)
    if scheme.calibrated and calibration is None:
        raise UsageError(f"{scheme.name} needs a calibration: run the model under quant.calibrating first")
    need_torchao()
    check(model, scheme)
    made: Any = _sharing(model)
    made.ends.untie()
    layers = linears(made)
    unknown = sorted(set(weights_only) - set(layers))
    if unknown:
        raise UsageError(f"the model has no layer {', '.join(unknown)}; its layers are {', '.join(layers)}")
    ranges = {name: calibration.ranges(name) for name in layers} if scheme.calibrated and calibration else {}
    for name, layer in layers.items():
        if not ranges:
            bits = None if name in weights_only else scheme.activation_bits
            layer.weight = rounded(layer.weight, scheme.weight_bits, scheme.group, activation_bits=bits)
            continue
        layer.weight = rounded_by(layer.weight, calibration.observers.weight(layer.weight))  # type: ignore[union-attr]
        if name not in weights_only:
            round_around(layer, *ranges[name])
    if scheme.embedding_bits < 16:
        group = scheme.group or 32 if scheme.embedding_bits == 4 else None
        made.ends.tokens = QuantizedEmbedding.of(made.ends.tokens.weight, scheme.embedding_bits, group)
    _own(made)
    return made.eval().requires_grad_(False)


def check(model: Any, scheme: Scheme) -> None:
    """Raises UsageError, naming the layers, where a model cannot be put in a scheme."""
    if is_quantized(model):
        raise UsageError("the model has been quantised: a scheme is for a model in floating point")
    width = model.ends.tokens.embedding_dim
    rows = {name: layer.in_features for name, layer in linears(model).items()} | {HEAD: width}
    group = scheme.group
    uneven = [f"{name} ({n})" for name, n in rows.items() if group and n % group]
    if uneven:
        more = f" and {len(uneven) - 3} more" if len(uneven) > 3 else ""
        raise UsageError(
            f"{scheme.name}: {group=} does not divide the rows of {', '.join(uneven[:3])}{more}:"
            f" 4-bit groups are multiples of 32; an int8 scheme takes any row"
        )


def is_quantized(model: nn.Module) -> bool:
    """Whether layers or the embedding hold integers."""
    return any(isinstance(m, QuantizedEmbedding) for m in model.modules()) or any(
        type(layer.weight) is not nn.Parameter for layer in linears(model).values()
    )


def with_integer_products(model: Any) -> Any:
    """A copy whose layers compute on integers or on floats: integer weights for float inputs become floats.

    For XNNPACK, which has no such products and computes something else in their place.
    Raises UsageError where no layer would be left that computes on integers.
    """
    made = copy.deepcopy(model)
    layers = [layer for layer in linears(made).values() if type(layer.weight) is not nn.Parameter]
    halves = [layer for layer in layers if not rounds_inputs(layer)]
    if layers and len(halves) == len(layers):
        raise UsageError("only this model's weights are integers: export it as it was before, or in dynamic_int8")
    for layer in halves:
        layer.weight = nn.Parameter(layer.weight.dequantize(), requires_grad=False)
    return made


def _sharing(model: nn.Module) -> nn.Module:
    """A copy that shares the parameters, which it is about to replace."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def _own(model: nn.Module) -> None:
    """Gives a copy in fp32 of each parameter that it still shares."""
    fresh: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if type(p) is nn.Parameter:
                made = fresh.setdefault(id(p), nn.Parameter(p.detach().float().clone(), requires_grad=False))
                setattr(module, name, made)


class QuantizationMode(Enum):
    STATIC = "static"
    DYNAMIC = "dynamic"
    WEIGHT_ONLY = "weight_only"


class QuantizationScheme(Enum):
    INT8 = "int8"
    INT4 = "int4"
    FP16 = "fp16"


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """Seed 003's words for a scheme."""

    mode: QuantizationMode = QuantizationMode.DYNAMIC
    scheme: QuantizationScheme = QuantizationScheme.INT8
    is_per_channel: bool = True  # static alone: a scale for each output channel of a weight; False: one for all
    calibration_samples: int = 100  # texts that `calibrate` reads, at most
    preserve_activation_precision_layers: tuple[str, ...] = ("lm_head",)  # by name; lm_head is ends.head here

    def find(self) -> Scheme:
        """The scheme that is meant. Raises UsageError for one that there is not: static int4."""
        fp16 = self.scheme is QuantizationScheme.FP16
        return find_scheme("fp16" if fp16 else f"{self.mode.value}_{self.scheme.value}")

    @property
    def observers(self) -> Observers:
        return get_per_channel_observers() if self.is_per_channel else get_default_observers()


class DiffuLexQuantizer:
    """Seed 003's way in: prepare, calibrate where the mode is static, convert. Every step leaves the model as it is."""

    def __init__(self, config: QuantizationConfig = QuantizationConfig()) -> None:
        self.config, self.scheme = config, config.find()
        self.calibration: Calibration | None = None

    def prepare_for_quantization(self, model: Any) -> Any:
        """The model itself, after it has been seen that `convert` can take it."""
        if not self.scheme.cast:
            check(model, self.scheme)
        self.calibration = None
        return model

    def calibrate(self, model: Any, texts: Iterable[Tensor]) -> Calibration:
        """Runs the model over texts of ids, each (T,), hidden in all shares: what static needs. See quant/static.py."""
        with calibrating(model, self.config.observers) as seen:
            replay(model, texts, at_most=self.config.calibration_samples)
        self.calibration = seen
        return seen

    def convert(self, model: Any) -> Any:
        """A new model in the scheme."""
        names = self.config.preserve_activation_precision_layers
        kept = () if self.scheme.cast else tuple(HEAD if name == "lm_head" else name for name in names)
        return quantize(model, self.scheme, self.calibration, weights_only=kept)

    def quantize_weights_only(self, model: Any) -> Any:
        """A new model with the scheme's weights, and activations as they were."""
        return quantize(model, find_scheme(f"weight_only_int{self.scheme.weight_bits}"))


def apply_dynamic_quantization(model: Any) -> Any:
    """Seed 003's short way to `dynamic_int8`."""
    return quantize(model, find_scheme("dynamic_int8"))


def apply_weight_only_quantization(model: Any) -> Any:
    """Seed 003's short way to `weight_only_int8`."""
    return quantize(model, find_scheme("weight_only_int8"))
