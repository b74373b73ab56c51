"""Two ways to write the same graph: as PyTorch traces it, or in the operators that a backend takes whole.

The model is not written twice. In the friendly dialect its norms and convolutions are exchanged for equal ones before
it is traced, and some operators are spelled out afterwards. Why each: XNNPACK takes linear, bmm, softmax and sums of
slices; it takes no layer norm, no mean over the last dimension, no masked fill, no split and no product in four
dimensions, and each that stays outside cuts the graph in two.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffulex_edge.model.layers import ShortConv

aten = torch.ops.aten
_SCALED = re.compile("affine|quantize")  # to integers and back: XNNPACK takes these operators for their product's type


@dataclass(frozen=True)
class Dialect:
    """How a graph is written."""

    modules: Mapping[type[nn.Module], Callable[[Any], nn.Module]] = field(default_factory=dict)  # type -> its equal
    operators: Mapping[Any, Callable[..., Any]] = field(default_factory=dict)  # operator -> what it is spelled as

    def write(self, model: nn.Module) -> nn.Module:
        """A copy of the model with its modules exchanged, for inference; parameters are shared where they are equal."""
        return self._exchange(copy.deepcopy(model).eval().requires_grad_(False))

    def spell(self, program: Any) -> Any:
        """The exported program with its operators spelled out, and what is constant in it computed."""
        if not self.operators:
            return program
        from executorch.exir.passes import constant_prop_pass as constants

        spelled = program.run_decompositions(dict(self.operators))
        scaled = {node.target for node in spelled.graph.nodes if _SCALED.search(str(node.target))}
        spelled = constants.constant_prop_pass(spelled, {*constants._DEFAULT_SKIP_TARGETS, *scaled})
        for node in spelled.graph.nodes:
            node.meta.pop("from_node", None)  # where it came from: each later pass would copy it, node by node
        return spelled

    def _exchange(self, module: nn.Module) -> nn.Module:
        for name, child in module.named_children():
            make = self.modules.get(type(child))
            setattr(module, name, self._exchange(child) if make is None else make(child))
        return module


class LinearNorm(nn.Module):
    """LayerNorm without bias, or RMSNorm: the mean is a product with a row of 1/D."""

    def __init__(self, norm: nn.LayerNorm | nn.RMSNorm) -> None:
        super().__init__()
        (width,) = norm.normalized_shape
        self.centred = isinstance(norm, nn.LayerNorm)
        self.eps = torch.finfo(norm.weight.dtype).eps if norm.eps is None else norm.eps
        self.weight = norm.weight
        self.register_buffer("mean", torch.full((1, width), 1 / width, dtype=norm.weight.dtype))

    mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = x - F.linear(x, self.mean) if self.centred else x
        return x * torch.rsqrt(F.linear(x * x, self.mean) + self.eps) * self.weight


class ConvTaps(nn.Module):
    """ShortConv as the convolution that it is."""

    def __init__(self, conv: ShortConv) -> None:
        super().__init__()
        kernel, width = conv.taps.shape
        self.reach = conv.reach
        self.conv = nn.Conv1d(width, width, kernel, groups=width, bias=False)
        self.conv.weight = nn.Parameter(conv.taps.T[:, None].contiguous(), requires_grad=False)

    def recall(self, halo: Tensor) -> Tensor:
        return halo

    def forward(self, x: Tensor, halo: Tensor | None, halo_real: Tensor | None, real: Tensor | None) -> Tensor:
        beyond = x.new_zeros(len(x), self.reach, x.shape[2])
        padded = torch.cat((beyond if halo is None else halo, x, beyond), 1)
        found: Tensor = self.conv(padded.transpose(1, 2)).transpose(1, 2)
        return found


def _masked_fill(x: Tensor, mask: Tensor, value: float) -> Tensor:
    """Only for -inf, which a sum leaves as it is; that of the mask is the same for all layers."""
    return x + torch.where(mask, value, 0.0).to(x.dtype) if value == -torch.inf else NotImplemented


def _slices(x: Tensor, sizes: list[int], dim: int) -> list[Tensor]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [x.narrow(dim, start, size) for start, size in zip(starts, sizes, strict=True)]


def _split(x: Tensor, size: int, dim: int = 0) -> list[Tensor]:
    length = x.shape[dim]
    return _slices(x, [min(size, length - start) for start in range(0, length, size)], dim)


def _split_sizes(x: Tensor, sizes: list[int], dim: int = 0) -> list[Tensor]:
    return _slices(x, sizes, dim)


def _chunk(x: Tensor, chunks: int, dim: int = 0) -> list[Tensor]:
    return _split(x, -(-x.shape[dim] // chunks), dim)


def _unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    return [x.narrow(dim, i, 1).squeeze(dim) for i in range(x.shape[dim])]


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    batch = a.shape[:-2]
    if a.ndim < 3 or batch != b.shape[:-2]:
        return NotImplemented
    found = torch.bmm(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]))
    return found.reshape(*batch, a.shape[-2], b.shape[-1])


def _expand(x: Tensor, size: list[int], *, implicit: bool = False) -> Tensor:
    same = len(size) == x.ndim and all(n in (-1, m) for n, m in zip(size, x.shape, strict=True))
    return x.view(x.shape) if same else NotImplemented


def alias(x: Tensor) -> Tensor:
    return x.view(x.shape)


def _unsqueeze(x: Tensor, dim: int) -> Tensor:
    at = dim % (x.ndim + 1)
    return x.reshape(*x.shape[:at], 1, *x.shape[at:])


def lerp(x: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    return x + weight * (end - x)


def unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    pieces = [x.narrow(dim, start, size) for start in range(0, x.shape[dim] - size + 1, step)]
    return torch.stack(pieces, dim).movedim(dim + 1, -1)


def _attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *_: Any, enable_gqa: bool = False, **__: Any
) -> Tensor:
    """The fused kernel as plain products, heads that share keys rows of one. q (B, H, Q, E), k and v (B, G, K, E)."""
    (batch, n_heads, queries, width), shared = q.shape, q.shape[1] // k.shape[1]
    scores = _matmul((q * width**-0.5).reshape(batch, -1, shared * queries, width), k.transpose(-1, -2))
    if mask is not None:
        seen = torch.where(mask, 0.0, -torch.inf).to(q.dtype)
        scores = (scores.reshape(batch, n_heads, queries, -1) + seen).reshape(scores.shape)
    return _matmul(scores.softmax(-1), v).reshape(q.shape)


NATIVE = Dialect()
PRODUCTS = {aten.scaled_dot_product_attention.default: _attention}  # attention as products, for who has not the kernel
FRIENDLY = Dialect(
    modules={nn.LayerNorm: LinearNorm, nn.RMSNorm: LinearNorm, ShortConv: ConvTaps},
    operators={
        aten.masked_fill.Scalar: _masked_fill,
        aten.split.Tensor: _split,
        aten.split_with_sizes.default: _split_sizes,
        aten.chunk.default: _chunk,
        aten.unbind.int: _unbind,
        aten.matmul.default: _matmul,
        aten.expand.default: _expand,
        aten.alias.default: alias,
        aten.unsqueeze.default: _unsqueeze,
        aten.lerp.Tensor: lerp,
        **PRODUCTS,
    },
)
