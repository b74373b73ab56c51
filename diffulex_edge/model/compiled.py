"""A denoiser whose layers and head are compiled graphs: torch.compile with weights packed for the processor."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.model.stack import run

GRAPHS = 64  # of a denoiser at most; what is asked for beyond them runs uncompiled


def compiled(denoiser: Any) -> Any:
    """The same weights behind a step compiled at its first call, which takes a minute; for inference alone.

    Attention over a cache that grows is compiled three times for all lengths: empty, between, and full at the end. A
    second shape of block, another depth, and a batch of different lengths compile again.
    """
    make: Any = torch.compile  # whose annotations know no limits
    how = {
        "options": {"freezing": True},  # weights become constants, in the layout that the products want
        "recompile_limit": GRAPHS,
        "isolate_recompiles": True,  # else all denoisers of a process share the limit
    }
    fast, ends = copy.copy(denoiser), copy.copy(denoiser.ends)
    fast._modules = {**denoiser._modules, "ends": ends}
    graph = make(run, **how)

    def run_layers(layers: Any, flow: Any, memory: Any, depth: int | None = None) -> Any:
        return graph(layers, flow, memory, len(layers) if depth is None else depth)

    fast.run_layers = run_layers
    head = make(denoiser.ends.logits, dynamic=True, **how)

    def logits(x: Tensor, rows: Tensor | None) -> Tensor:
        """Rows are chosen outside of the graph, whose number of rows is free."""
        found: Tensor = head(x if rows is None else x[rows], None)
        return found

    ends.logits = logits
    return fast
