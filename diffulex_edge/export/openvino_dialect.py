"""How a graph is written for OpenVINO, by itself or inside ExecuTorch.

Its CPU plugin takes the attention kernel's groups of heads, and fails at 128 tokens; ExecuTorch's partitioner leaves
`unfold` outside, and cuts the graph there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffulex_edge.export.dialect import PRODUCTS, Dialect, unfold
from diffulex_edge.runtime.sampler import likeliest

aten = torch.ops.aten


def _argmax(x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """Of logits (1, L, V), by `likeliest`: OpenVINO's own takes half as long as the product that makes them."""
    if x.ndim != 3 or dim not in (-1, 2):
        return NotImplemented  # those within `likeliest`
    return likeliest(x[0])[None]


OPENVINO = Dialect(operators={**PRODUCTS, aten.argmax.default: _argmax, aten.unfold.default: unfold})
