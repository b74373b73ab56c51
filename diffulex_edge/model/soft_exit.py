"""A feed-forward of fewer channels: what an early exit leaves of a layer.

Only a prefix of the channels is computed, which saves time where masking them would not; so the first channels have to
be those that matter most (`sort_channels`, MatFormer's nesting in training, arXiv:2310.07707).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 16  # tokens; below them one share for all of a block is the faster


class Keep(NamedTuple):
    """What is left of the feed-forwards of the layers to come. Nothing for any token: those layers do not run."""

    share: Tensor  # (B, L) of a layer's channels, in [0, 1]
    narrowed: Narrowed


Narrowed = Callable[[Any, Tensor, Tensor], Tensor]  # feed-forward, x (B, L, D), share (B, L) -> (B, L, D)


@dataclass(frozen=True, eq=False)
class Within:
    """An exit (`Exit` of model/base.py) that judges a block by itself where the layers look at more than the block."""

    exit: Callable[[int, Tensor], Keep | None]
    spoken: Callable[[Tensor], Tensor]  # of all states (B, S, D) those that speak about the block (B, L, D)

    def __call__(self, layer: int, x: Tensor) -> Keep | None:
        """All columns keep what the token of the block that keeps most does."""
        keep = self.exit(layer, self.spoken(x))
        return keep and keep._replace(share=keep.share.amax(1, keepdim=True).expand(x.shape[:2]))


@dataclass(frozen=True)
class Thinned:
    """An exit (`Exit`) behind one layer, whatever the text: training meets it, and benchmarks."""

    layer: int  # the number of the last whole layer, from 0
    share: float  # of the channels of each layer behind it, for all tokens
    narrowed: Narrowed | None = None  # None: staircase

    def __call__(self, layer: int, x: Tensor) -> Keep | None:
        if layer != self.layer:
            return None
        return Keep(x.new_full(x.shape[:2], self.share, dtype=torch.float32), self.narrowed or staircase)


def staircase(ff: Any, x: Tensor, share: Tensor) -> Tensor:
    """Each token through the first channels alone: x (B, L, D), share (B, L) of them, rounded up, in [0, 1].

    Tokens are sorted by how many channels they keep, and segment after segment of the channels is multiplied for the
    tokens that still want it, so that every weight is read once. One pass where all keep alike; where there are few
    tokens all keep as much as the one that keeps most.
    """
    inner = ff.down.weight.shape[1]
    kept = (share.flatten() * inner).ceil().long()  # (n,) channels
    levels = [int(n) for n in kept.unique()] if kept.numel() >= FEW else [int(kept.max())]
    if levels == [inner]:
        return ff(x)
    tokens = x.flatten(0, 1)
    if len(levels) == 1:
        return _segment(ff, tokens, 0, levels[0]).view_as(x)
    order = kept.argsort(descending=True, stable=True)
    tokens, sums, start = tokens[order], torch.zeros_like(tokens), 0
    for level in levels:
        n = int((kept >= level).sum())
        sums[:n] += _segment(ff, tokens[:n], start, level)
        start = level
    return torch.empty_like(sums).index_copy_(0, order, sums).view_as(x)


def masked(ff: Any, x: Tensor, share: Tensor) -> Tensor:
    """The same values from all channels, those beyond a token's share set to zero: saves no time (seed 004, way 1)."""
    gate, up = ff.gate_up(x).chunk(2, -1)
    inner = gate.shape[-1]
    alive = torch.arange(inner, device=x.device) < (share * inner).ceil()[..., None]
    found: Tensor = ff.down(F.silu(gate) * up * alive)
    return found


def _segment(ff: Any, x: Tensor, start: int, stop: int) -> Tensor:
    """What channels start to stop add to tokens (n, D)."""
    if start == stop:
        return torch.zeros_like(x)
    inner = ff.down.weight.shape[1]
    gate = F.linear(x, ff.gate_up.weight[start:stop])
    up = F.linear(x, ff.gate_up.weight[inner + start : inner + stop])
    return F.linear(F.silu(gate) * up, ff.down.weight[:, start:stop])


def importance(layers: Iterable[Any], look: Callable[[], None]) -> list[Tensor]:
    """How much each channel of each layer's feed-forward adds while `look` runs the model: mean |a_j| ||W_down[:, j]||.

    One tensor (K,) a layer. Wanda's measure (arXiv:2306.11695), summed over the channel's outputs.
    """
    sums: list[Any] = []
    handles = []

    def watch(index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sums[index] = sums[index] + inputs[0].detach().abs().double().flatten(0, -2).sum(0)

        return see

    layers = list(layers)
    for i, layer in enumerate(layers):
        sums.append(0.0)
        handles.append(layer.ff.down.register_forward_pre_hook(watch(i)))
    try:
        look()
    finally:
        for handle in handles:
            handle.remove()
    return [s * layer.ff.down.weight.detach().double().norm(dim=0) for s, layer in zip(sums, layers, strict=True)]


@torch.no_grad()
def sort_channels(layers: Iterable[Any], orders: Iterable[Tensor]) -> None:
    """Puts the channels of each layer's feed-forward in the given order (K,); up to rounding, the same function."""
    for layer, order in zip(layers, orders, strict=True):
        down, gate_up = layer.ff.down, layer.ff.gate_up
        down.weight.copy_(down.weight[:, order])
        gate_up.weight.copy_(gate_up.weight[torch.cat((order, order + len(order)))])
