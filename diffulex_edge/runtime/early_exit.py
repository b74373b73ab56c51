"""SEDAC in the decoding loop: probes judge hidden tokens layer by layer, and the layers thin out or end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.soft_exit import Keep, Narrowed, staircase
from diffulex_edge.runtime.step import Step
from diffulex_edge.sedac.controller import CascadeController
from diffulex_edge.sedac.probe import Risk
from diffulex_edge.sedac.tensors import TensorLayer, TensorStep, begin, step, tensor_layers


@dataclass(frozen=True, kw_only=True, eq=False)
class SedacExit:
    """An ExitController for `Plan(exit=...)`. Hidden tokens exit one by one, by their risk and the cascade.

    A token that has exited keeps 1 - ratio of its channels, rounded up to a level; tokens that are shown already, which
    the others read, keep as much as the hidden one that keeps most. When all hidden tokens have exited the rest of the
    layers may be left out altogether: only a look does so, what is remembered is always whole.
    """

    controller: CascadeController
    probes: Mapping[int, Risk]  # by the model's layer, from 0: the controller's checkpoints
    levels: int = 4  # in which the share of channels is counted
    ends: bool = True  # leave the layers out once all hidden tokens have exited
    fade: float = 0.0  # how much faster confidence decays the more of the block is hidden: decay * (1 - fade * share)
    routes: Tensor | None = None  # (kinds + 1,): what thresholds are multiplied by near a token of the kind
    kinds: Tensor | None = None  # (V,) of each token, from 1; 0: of none
    narrowed: Narrowed = staircase

    def __post_init__(self) -> None:
        if set(self.probes) != set(self.controller.layers):
            raise UsageError(f"probes behind layers {sorted(self.probes)}, checkpoints {list(self.controller.layers)}")
        if self.levels < 1:
            raise UsageError(f"levels={self.levels} must be at least 1")
        if not 0 <= self.fade <= 1:
            raise UsageError(f"fade={self.fade} must lie between 0 and 1")

    def start(self, block: Tensor, hidden: Tensor, step: Step) -> _Look:
        layers = tensor_layers(self.controller, hidden.device)
        if self.fade:
            keeps = 1 - self.fade * hidden.float().mean(1, keepdim=True)  # (B, 1)
            layers = {i: layer._replace(decay=layer.decay * keeps) for i, layer in layers.items()}
        if self.routes is not None and self.kinds is not None:
            route = self.routes[nearest_kind(self.kinds, block, hidden)]  # (B, L)
            layers = {i: layer._replace(threshold=layer.threshold * route) for i, layer in layers.items()}
        return _Look(self, layers, hidden, step, begin(hidden))


def nearest_kind(kinds: Tensor, block: Tensor, hidden: Tensor) -> Tensor:
    """The kind (B, L) of the last token shown at or before each place of a block (B, L), else of the first after it.

    kinds (V,): of each token, from 1; tokens of kind 0 are passed over. 0 where a row shows none.
    """
    known = kinds[block].long().masked_fill(hidden, 0)
    before, after = _filled(known), _filled(known.flip(1)).flip(1)
    return torch.where(before > 0, before, after)


def _filled(known: Tensor) -> Tensor:
    """Each place (B, L) with the last one above 0 at or before it."""
    places = torch.arange(known.shape[1], device=known.device).expand_as(known)
    return known.gather(1, torch.where(known > 0, places, 0).cummax(1).values)


@dataclass(eq=False)
class _Look:
    """The exit of one look."""

    exits: SedacExit
    layers: dict[int, TensorLayer]
    hidden: Tensor  # (B, L)
    step: Step
    state: TensorStep  # (B, L)
    last: Tensor | None = None  # states behind the layer before

    def __call__(self, layer: int, x: Tensor) -> Keep | None:
        last, self.last = self.last, x
        if layer not in self.layers:
            return None
        exits, hidden = self.exits, self.hidden
        masked = hidden.float().mean(1, keepdim=True)
        risk = exits.probes[layer](x, masked, self.step.t.to(x.device)[:, None], last)
        soft = exits.controller.soft_exit_enabled
        self.state = step(self.state.confidence, self.state.exited, risk, self.layers[layer], soft)
        gone = self.state.exited & hidden
        if not gone.any():
            return None
        if exits.ends and bool((gone == hidden).all()):
            return Keep(torch.zeros_like(risk), exits.narrowed)
        share = ((1 - self.state.ratio) * exits.levels).ceil() / exits.levels
        most = share.masked_fill(~hidden, 0).amax(1, keepdim=True)
        return Keep(torch.where(hidden, share, most), exits.narrowed)
