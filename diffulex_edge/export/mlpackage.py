"""A denoiser as Core ML's own package, for Macs and iPhones: the methods of a .pte as functions that share weights.

    OUT.mlpackage  OUT.mlpackage.json, with the sha256 of each of its files

It is made anywhere and runs on macOS 15, iOS 18 and newer. Core ML has no scalars and no integers of 64 bits, and its
functions no memory of their own: numbers are vectors of one, and what a text has left behind goes in and out.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge.backends.base import installed
from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.export.config import SUFFIX, ExportConfig, ExportResult
from diffulex_edge.export.coreml_dialect import COREML
from diffulex_edge.export.graph import Graph, Method, Port, as_vectors
from diffulex_edge.export.stateless import Stateless, memory_ports
from diffulex_edge.files import read_sealed_json, sha256_file, write_sealed_json
from diffulex_edge.model import checkpoint

MLPACKAGE = "mlpackage"  # the backend's name, and the suffix of what it writes
ROUNDINGS = (None, "weight_only_int8")  # schemes that it takes; weights that are not integers are fp16


def check_scheme(quantization: str | None) -> None:
    """Raises UsageError for a scheme that is not Core ML's, BackendUnavailable where a package is missing."""
    if quantization not in ROUNDINGS:
        raise UsageError(f"{MLPACKAGE} does not compute {quantization}; it takes weight_only_int8")
    for package in ("coremltools", "executorch"):
        installed(package, MLPACKAGE, "export").need()


class Entry(nn.Module):
    """A stateless method by what Core ML can pass."""

    def __init__(self, graph: Graph, method: Method) -> None:
        super().__init__()
        self.inner, self.ports = Stateless(graph, as_vectors(method)), (*method.inputs, *memory_ports(graph))

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        given = (value.to(getattr(torch, port.dtype)) for value, port in zip(values, self.ports, strict=True))
        return tuple(value if value.is_floating_point() else value.int() for value in self.inner(*given))


def passed(port: Port, name: str) -> Port:
    """The port as Core ML passes it."""
    return replace(port, name=name, dtype=port.dtype.replace("int64", "int32"))


def ports(graph: Graph, method: Method) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs of a function; an output that has an input's name is `NAME_after`.

    What is remembered is `memory_NAME`: Core ML keeps `state` for itself.
    """
    method, memory = as_vectors(method), [replace(port, name=f"memory_{port.name}") for port in memory_ports(graph)]
    given = [passed(port, port.name) for port in (*method.inputs, *memory)]
    names = {port.name for port in given}
    left = (*method.outputs, *(memory if method.keeps else ()))
    return given, [passed(port, f"{port.name}_after" if port.name in names else port.name) for port in left]


def entry_program(graph: Graph, method: Method) -> Any:
    """What coremltools is given: the function as an exported program, in operators that it knows."""
    given, _ = ports(graph, method)
    with torch.no_grad():
        examples = tuple(port.example() for port in given)
        return COREML.spell(torch.export.export(Entry(graph, method), examples, strict=False))


def export_package(
    graph: Graph,
    methods: Sequence[Method],
    path: Path,
    config: ExportConfig,
    description: Mapping[str, Any],
    beside: Sequence[Path] = (),
) -> ExportResult:
    """Writes the package whole or not at all, then its description."""
    if path.suffix != f".{MLPACKAGE}":
        raise UsageError(f"{path}: Core ML opens packages whose names end in .{MLPACKAGE}")
    path.parent.mkdir(parents=True, exist_ok=True)
    functions = {method.name: ports(graph, method) for method in methods}
    whole = {
        **description,
        "methods": {
            name: {"inputs": [asdict(port) for port in given], "outputs": [asdict(port) for port in left]}
            for name, (given, left) in functions.items()
        },
        "keeps": [method.name for method in methods if method.keeps],
    }
    with TemporaryDirectory(prefix="mlpackage-", dir=path.parent) as work, _quiet():
        made = _package(graph, methods, Path(work), config.quantization)
        checkpoint.replace_folder(made, path)
    files = _files(path)
    about = path.with_name(path.name + SUFFIX)
    write_sealed_json(about, {**whole, "files": files})
    return ExportResult(
        path=path,
        size_bytes=sum(file["size_bytes"] for file in files),
        sha256=sha256_file(about),
        backend=config.backend,
        quantization=config.quantization,
        methods=tuple(functions),
        outside={name: {} for name in functions},
        description=whole,
    )


def verify_package(path: Path) -> dict[str, Any]:
    """The description of a package, after each of its files was checked. ArtefactError names the first that is bad."""
    about: dict[str, Any] = read_sealed_json(path.with_name(path.name + SUFFIX))
    there = {file["name"]: file for file in _files(path)}
    told = {file["name"]: file for file in about["files"]}
    wrong = sorted(name for name in {*there, *told} if there.get(name) != told.get(name))
    if wrong:
        raise ArtefactError(f"{path / wrong[0]}: missing, damaged or not of the package, says {path.name}{SUFFIX}")
    return about


def _files(package: Path) -> list[dict[str, Any]]:
    paths = sorted(path for path in package.rglob("*") if path.is_file())
    return [
        {"name": str(path.relative_to(package)), "sha256": sha256_file(path), "size_bytes": path.stat().st_size}
        for path in paths
    ]


def _package(graph: Graph, methods: Sequence[Method], work: Path, quantization: str | None) -> Path:
    """One package of all methods, from one of each: coremltools finds the weights that they share."""
    import coremltools

    whole = coremltools.utils.MultiFunctionDescriptor()
    for method in methods:
        alone = work / f"{method.name}.{MLPACKAGE}"
        _converted(graph, method, quantization).save(str(alone))
        whole.add_function(str(alone), src_function_name="main", target_function_name=method.name)
    whole.default_function_name = methods[0].name
    made = work / f"whole.{MLPACKAGE}"
    coremltools.utils.save_multifunction(whole, str(made))
    return made


def _converted(graph: Graph, method: Method, quantization: str | None) -> Any:
    import coremltools
    import numpy as np

    def kind(port: Port) -> type:
        return np.dtype(port.dtype).type

    given, left = ports(graph, method)
    model = coremltools.convert(
        entry_program(graph, method),
        inputs=[coremltools.TensorType(port.name, port.shape, kind(port)) for port in given],
        outputs=[coremltools.TensorType(port.name, dtype=kind(port)) for port in left],
        convert_to="mlprogram",
        minimum_deployment_target=coremltools.target.iOS18,
        compute_precision=coremltools.precision.FLOAT16,
        skip_model_load=True,
    )
    if quantization is None:
        return model
    rounding = coremltools.optimize.coreml.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8")
    config = coremltools.optimize.coreml.OptimizationConfig(global_config=rounding)
    return coremltools.optimize.coreml.linear_quantize_weights(model, config)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without coremltools' bars, one a method and pass, and its remarks on the versions that it finds."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
