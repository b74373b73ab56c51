"""Calibration: what the layers of a model see while it runs, and a layer that rounds by what was seen.

It does not run the model: `with calibrating(model) as seen:` the caller does (tuning/calibrate.py: as decoding does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.quant.observers import HIGH, LOW, Observer, Observers, Range, get_per_channel_observers


@dataclass(frozen=True)
class Calibration:
    """What was seen, layer by layer, of inputs and of outputs."""

    observers: Observers
    inputs: dict[str, Observer] = field(default_factory=dict)
    outputs: dict[str, Observer] = field(default_factory=dict)

    def ranges(self, layer: str) -> tuple[Range, Range]:
        """Of what goes into a layer and of what comes out. Raises UsageError where the model never called it."""
        if layer not in self.inputs:
            raise UsageError(f"layer {layer} was not called while the model was calibrated: run what uses it as well")
        return self.inputs[layer].range(), self.outputs[layer].range()


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The layers that are quantised, by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


@contextmanager
def calibrating(model: Any, observers: Observers | None = None) -> Iterator[Calibration]:
    """Watches the layers of a model while the block runs; the model itself computes what it always does.

    A head that is the embedding becomes a layer of its own meanwhile, so that it is watched too.
    """
    seen = Calibration(observers or get_per_channel_observers())
    if seen.observers.activation is None:
        raise UsageError("these observers look at no activations: there is nothing to calibrate")
    ends = model.ends
    tied = ends.head is None
    ends.untie()
    with ExitStack() as stack:
        if tied:
            stack.callback(setattr, ends, "head", None)
        for name, layer in linears(model).items():
            stack.callback(layer.register_forward_hook(partial(_watch, seen, name)).remove)
        yield seen


def _watch(seen: Calibration, name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    make: Callable[[], Observer] = seen.observers.activation  # type: ignore[assignment]  # checked above
    for place, x in ((seen.inputs, inputs[0]), (seen.outputs, output)):
        place.setdefault(name, make()).observe(x)


class Rounding(nn.Module):
    """Rounds x to the 256 numbers of a range, in the two operators that XNNPACK reads as "int8 from here on"."""

    def __init__(self, range: Range) -> None:
        super().__init__()
        from torch.ao.quantization.fx import _decomposed  # noqa: F401 (names the two operators)

        self.range = range

    def forward(self, x: Tensor) -> Tensor:
        ops, how = torch.ops.quantized_decomposed, (self.range.scale, self.range.zero, LOW, HIGH, torch.int8)
        rounded: Tensor = ops.dequantize_per_tensor.default(ops.quantize_per_tensor.default(x, *how), *how)
        return rounded.to(x.dtype)

    def extra_repr(self) -> str:
        return f"scale={self.range.scale:.3g}, zero={self.range.zero}"


def round_around(layer: nn.Linear, before: Range, after: Range) -> None:
    """What goes into the layer and what comes out are rounded from now on; its weights are another matter."""
    layer.before, layer.after = Rounding(before), Rounding(after)
    layer.register_forward_pre_hook(_before)
    layer.register_forward_hook(_after)


def rounds_inputs(layer: nn.Linear) -> bool:
    """Whether what goes into a layer is rounded, by ranges of its own or token by token."""
    return hasattr(layer, "before") or getattr(layer.weight, "activation_quantization", None) is not None


def _before(layer: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    rounded: Tensor = layer.before(inputs[0])
    return rounded


def _after(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    rounded: Tensor = layer.after(output)
    return rounded
