"""A denoiser whose layers and head are compiled graphs: weights are constants, packed for the processor."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Exit
from diffulex_edge.model.stack import run

GRAPHS = 64  # of a denoiser at most; what is asked for beyond them runs uncompiled
INDUCTOR = {
    "freezing": True,  # what depends on weights alone is computed once, in the layout that the products want
    "cpp_wrapper": True,  # what calls the kernels is compiled as well: they are many, and short
    "max_autotune": True,  # each product by the library or by generated code, as is faster here for its shape
    "max_autotune_gemm_backends": "CPP,ATEN",
    "max_autotune_report_choices_stats": False,
    "autotune_num_choices_displayed": 0,
}


def compiled(denoiser: Any) -> Any:
    """The same weights behind a step compiled at its first call, which takes minutes; for inference alone.

    Attention over a cache that grows is compiled three times for all lengths: empty, between, and full at the end. A
    second shape of block, another depth, and a batch of different lengths compile again. Weights must not change
    later: the products have packed copies.
    """
    fast, ends = copy.copy(denoiser), copy.copy(denoiser.ends)
    fast._modules = {**denoiser._modules, "ends": ends}
    graph = _compile(run)

    def run_layers(layers: Any, flow: Any, memory: Any, depth: int | None = None, exit: Exit | None = None) -> Any:
        if exit is not None:
            raise UsageError("a compiled step runs all of its layers: early exit (SEDAC) needs the plain one")
        return graph(layers, flow, memory, len(layers) if depth is None else depth)

    fast.run_layers = run_layers
    head = _compile(denoiser.ends.logits, dynamic=True)

    def logits(x: Tensor, rows: Tensor | None) -> Tensor:
        """Rows are chosen outside of the graph, whose number of rows is free."""
        found: Tensor = head(x if rows is None else x[rows], None)
        return found

    ends.logits = logits
    return fast


def _compile(function: Callable[..., Any], dynamic: bool | None = None) -> Any:
    make: Any = torch.compile  # whose annotations know no limits
    return make(
        function,
        backend=_packed,
        dynamic=dynamic,
        recompile_limit=GRAPHS,
        isolate_recompiles=True,  # else all denoisers of a process share the graphs and their limit
        options={"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe},  # the layers are always these
    )


def _packed(graph: Any, inputs: list[Any]) -> Any:
    """Inductor, told that parameters are constants: torch.compile passes them as inputs, which it cannot pack."""
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx

    free = []  # inputs that are no parameters
    for i, (node, value) in enumerate(zip(graph.graph.find_nodes(op="placeholder"), inputs, strict=True)):
        if not isinstance(value, nn.Parameter) or torch.is_grad_enabled():
            free.append(value)
            continue
        name = f"constant_{i}"
        setattr(graph, name, value)
        graph._param_name_to_source[name] = node._dynamo_source
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.get_attr(name))
        graph.graph.erase_node(node)
    graph.recompile()
    with config.patch(INDUCTOR), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TypedStorage is deprecated")  # PyTorch's own use of it
        return compile_fx(graph, free)  # called with the placeholders that are left
