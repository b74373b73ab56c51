"""The layer loop: where context, depth and early exit meet, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Exit


class Look(NamedTuple):
    """How a denoiser looks at a block: the arguments of the call that its layers are concerned with."""

    t: Tensor | None = None  # (B,)
    depth: int | None = None
    exit: Exit | None = None


def run(
    layers: nn.ModuleList, flow: Any, memory: Sequence[Any], depth: int | None = None, exit: Exit | None = None
) -> tuple[Any, list[Any]]:
    """Runs the first `depth` layers: each takes the flow and what it remembers, and gives the flow and what it saw.

    `exit` is asked behind each layer but the last what is left of those to come; if nothing, they do not run.
    """
    n = len(layers) if depth is None else depth
    if not 1 <= n <= len(layers):
        raise UsageError(f"{depth=} is not between 1 and the model's {len(layers)} layers")
    saw = []
    for i, (layer, remembered) in enumerate(zip(layers[:n], memory[:n], strict=True)):
        flow, seen = layer(flow, remembered)
        saw.append(seen)
        keep = None if exit is None or i + 1 == n else exit(i, flow.tokens)
        if keep is not None:
            if not keep.share.any():
                break
            flow = flow._replace(keep=keep)
    return flow, saw
