"""A method without a memory of its own, for runtimes that have none: what is remembered comes in, and goes out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from diffulex_edge.export.graph import Bound, Graph, Method, Port

CONSTANT = ("empty",)  # buffers of a graph that no method writes to


def memory(graph: Any) -> dict[str, Tensor]:
    """What a graph remembers, by the names of its buffers."""
    return {name: value for name, value in graph.named_buffers(recurse=False) if name not in CONSTANT}


def memory_ports(graph: Any) -> tuple[Port, ...]:
    return tuple(
        Port(name, str(value.dtype).removeprefix("torch."), tuple(value.shape)) for name, value in memory(graph).items()
    )


class Stateless(nn.Module):
    """A method of a graph: (*inputs, *memory) -> (*outputs, *memory), the last only where it is to be kept."""

    def __init__(self, graph: Any, method: Method) -> None:
        super().__init__()
        self.bound, self.names = Bound(graph, method.function), tuple(memory(graph))
        self.n_inputs, self.keeps = len(method.inputs), method.keeps

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        given, before = values[: self.n_inputs], values[self.n_inputs :]
        kept = {f"state.{name}": value.clone() for name, value in zip(self.names, before, strict=True)}
        found = functional_call(self.bound, kept, given)
        found = found if isinstance(found, tuple) else (found,)
        return (*found, *kept.values()) if self.keeps else found


def trace_stateless(graph: Graph, method: Method) -> Any:
    """The method as an exported program of fixed shapes that writes to nothing."""
    examples = tuple(port.example() for port in (*method.inputs, *memory_ports(graph)))
    with torch.no_grad():
        return torch.export.export(Stateless(graph, method), examples, strict=False)
