"""How a graph is written for coremltools 9, which reads PyTorch's programs and knows only some of its operators.

It has no unfold, lerp or addcmul, no bitwise operators on booleans; it pads booleans with numbers, and turns integers
into fractions where they are divided, clamped, or the columns at which `index_copy` writes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffulex_edge.export.dialect import Dialect, alias, lerp, unfold

aten = torch.ops.aten


def _and(a: Tensor, b: Tensor) -> Tensor:
    return torch.logical_and(a, b) if a.dtype == torch.bool else NotImplemented


def _or(a: Tensor, b: Tensor) -> Tensor:
    return torch.logical_or(a, b) if a.dtype == torch.bool else NotImplemented


def _pad(x: Tensor, pad: list[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Only of booleans, which have no other mode: `pad` has what comes before and after, from the last dimension on."""
    if x.dtype != torch.bool:
        return NotImplemented
    for dim, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), 1):
        fills = [torch.full((*x.shape[:-dim], n, *x.shape[x.ndim - dim + 1 :]), bool(value)) for n in (before, after)]
        x = torch.cat((fills[0], x, fills[1]), -dim)
    return x


def _index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    shape = [-1 if i == dim else 1 for i in range(x.ndim)]
    return x.scatter(dim, index.reshape(shape).expand(source.shape), source)


def _clamp(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    if x.is_floating_point() or min is None or max is not None:
        return NotImplemented
    return torch.maximum(x, torch.full_like(x, int(min)))


def _addcmul(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x + a * b if value == 1 else NotImplemented


def _where(condition: Tensor, x: Tensor, other: float) -> Tensor:
    return torch.where(condition, x, torch.full_like(x, other))


COREML = Dialect(
    operators={
        aten.unfold.default: unfold,
        aten.bitwise_and.Tensor: _and,
        aten.__and__.Tensor: _and,
        aten.bitwise_or.Tensor: _or,
        aten.__or__.Tensor: _or,
        aten.pad.default: _pad,
        aten.index_copy.default: _index_copy,
        aten.index_copy_.default: _index_copy,
        aten.clamp.default: _clamp,
        aten.addcmul.default: _addcmul,
        aten.addcmul_.default: _addcmul,
        aten.where.ScalarOther: _where,
        aten.lerp.Tensor: lerp,
        aten.alias.default: alias,
    }
)
