"""A model as machine code of AOTInductor, made and held by the process that measures it.

Such a file runs whatever is in it, so none is kept, shipped or opened from a folder: it is an engine to measure.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import BackendUnavailable
from diffulex_edge.export.config import ExportConfig
from diffulex_edge.export.dialect import NATIVE
from diffulex_edge.export.exporter import describe
from diffulex_edge.export.shapes import make_graph
from diffulex_edge.export.stateless import memory, memory_ports, trace_stateless
from diffulex_edge.runtime.program import empty

INDUCTOR = {"freezing": True}  # weights lie as the products want them


class AotProgram:
    """What `Program` is for a .pte; a method is compiled when it is first called, which takes a minute."""

    def __init__(self, model: Any, config: ExportConfig, folder: Path) -> None:
        """config.backend: one that takes any context in its native spelling, such as openvino_ir."""
        self._graph = make_graph(NATIVE.write(model), config)
        dtype = next(model.parameters()).dtype
        for kept in memory(self._graph):
            buffer = getattr(self._graph, kept)
            setattr(self._graph, kept, buffer.to(dtype) if buffer.is_floating_point() else buffer)
        self._known = {method.name: method for method in self._graph.methods(())}
        self.description = {**describe(self._graph, list(self._known.values()), config, {}), "backend": "aotinductor"}
        self._memory = [empty(asdict(port)) for port in memory_ports(self._graph)]
        self._folder, self._methods = folder, dict[str, Any]()

    def call(self, name: str, *inputs: Tensor) -> list[Any]:
        """What a method gives for its inputs."""
        if name not in self._methods:
            self._methods[name] = self._compiled(name)
        found = list(self._methods[name](*inputs, *self._memory))
        if self._known[name].keeps:
            outputs = len(found) - len(self._memory)
            found, self._memory = found[:outputs], found[outputs:]
        return found

    def _compiled(self, name: str) -> Any:
        program = trace_stateless(self._graph, self._known[name])
        path = str(self._folder / f"{id(self)}-{name}.pt2")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch's own
                torch._inductor.aoti_compile_and_package(program, package_path=path, inductor_configs=INDUCTOR)
        except torch._inductor.exc.InvalidCxxCompiler:
            raise BackendUnavailable("AOTInductor needs a C++ compiler: install g++ or clang++") from None
        return torch._inductor.aoti_load_package(path)
