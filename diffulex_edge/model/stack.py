"""The layer loop: where context and depth meet, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from diffulex_edge.errors import UsageError


def run(layers: nn.ModuleList, flow: Any, memory: Sequence[Any], depth: int | None = None) -> tuple[Any, list[Any]]:
    """Runs the first `depth` layers: each takes the flow and what it remembers, and gives the flow and what it saw."""
    n = len(layers) if depth is None else depth
    if not 1 <= n <= len(layers):
        raise UsageError(f"{depth=} is not between 1 and the model's {len(layers)} layers")
    saw = []
    for layer, remembered in zip(layers[:n], memory[:n], strict=True):
        flow, seen = layer(flow, remembered)
        saw.append(seen)
    return flow, saw
