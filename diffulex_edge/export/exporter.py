"""`export_model`: a denoiser becomes one .pte of several methods, with a description beside it.

Model, quantised if asked, written in the backend's dialect, traced method by method, lowered, checked, written.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.backends import BACKENDS
from diffulex_edge.backends.base import Backend, compiler
from diffulex_edge.errors import UsageError
from diffulex_edge.export import mlpackage, openvino_ir
from diffulex_edge.export.config import SUFFIX, ExportConfig, ExportResult
from diffulex_edge.export.coreml_dialect import COREML
from diffulex_edge.export.delegation import check, outside
from diffulex_edge.export.dialect import FRIENDLY, NATIVE, Dialect
from diffulex_edge.export.graph import Bound, Graph, Method, as_vectors, touching
from diffulex_edge.export.openvino_dialect import OPENVINO
from diffulex_edge.export.rounding import rounded
from diffulex_edge.export.shapes import make_graph
from diffulex_edge.files import write_atomic, write_sealed_json
from diffulex_edge.quant import SCHEMES, find_scheme
from diffulex_edge.quant.quantizer import is_quantized, quantize, with_integer_products

FORMAT = "diffulex-edge-program/1"
DIALECTS = {"xnnpack": FRIENDLY, "coreml": COREML, "openvino": OPENVINO}  # of the others it is NATIVE
FORMS = {  # that are not ExecuTorch's: backend -> what checks a scheme, and what writes
    openvino_ir.IR: (openvino_ir.check_scheme, openvino_ir.export_ir),
    mlpackage.MLPACKAGE: (mlpackage.check_scheme, mlpackage.export_package),
}
RUNTIMES = {  # backend -> the package that made its programs
    **dict.fromkeys(BACKENDS, "executorch"),
    openvino_ir.IR: "openvino",
    mlpackage.MLPACKAGE: "coremltools",
}


def export_model(
    model: Any,
    example_inputs: tuple[Tensor, ...] | None = None,
    *,
    output_path: str | Path,
    backend: str = "xnnpack",
    quantization: str | None = None,
    about: Mapping[str, Any] | None = None,
    calibration: Sequence[Sequence[int]] = (),
    **shapes: Any,
) -> ExportResult:
    """Writes the model as a .pte for a backend, and `output_path`.json, which says what is in it.

    model: a Denoiser of ours, on the CPU.
    example_inputs: ids (1, L), whose length becomes the block size; None: `block_size`.
    quantization: the name of a scheme, such as dynamic_int8.
    about: facts to put into the description, such as the tokenizer's fingerprint.
    calibration: texts, as ids, that a backend with a quantiser of its own (qnn) chooses its ranges by.
    shapes: the other fields of ExportConfig.
    Raises BackendUnavailable where a package is missing, UsageError where the model or a shape does not fit.
    """
    config = ExportConfig(backend=backend, quantization=quantization, **shapes)
    if example_inputs:
        config = replace(config, block_size=_length(example_inputs[0]))
    return export(model, Path(output_path), config, about or {}, calibration=calibration)


@contextmanager
def _without_known_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # PyTorch's own use of it
        warnings.filterwarnings("ignore", "Mutation on a buffer", UserWarning)  # `start` says how much of it is text
        yield


def _check_calibration(calibration: Sequence[Sequence[int]], backend: str, quantizer: Any) -> None:
    if calibration and quantizer is None:
        raise UsageError(f"{backend} has no quantiser of its own and takes no calibration texts: qnn does")


@_without_known_warnings()
def export(
    model: Any,
    path: Path,
    config: ExportConfig,
    about: Mapping[str, Any],
    banned: Sequence[int] = (),
    calibration: Sequence[Sequence[int]] = (),
    beside: Sequence[Path] = (),
) -> ExportResult:
    """`export_model` with its shapes as one value. banned: ids that a step never shows, beside the mask.

    beside: files that go along where the output is a folder.
    """
    takes_integers = config.backend in BACKENDS and BACKENDS[config.backend].integers
    if is_quantized(model) and not takes_integers:
        raise UsageError(f"{config.backend} takes models in floating point: export what this one was quantised from")
    about = {**about, "weights_sha256": _digest(model)}
    if config.backend in FORMS:
        check_scheme, write = FORMS[config.backend]
        check_scheme(config.quantization)
        _check_calibration(calibration, config.backend, None)
        graph = make_graph(NATIVE.write(_in_fp32(model)), config, banned)
        methods = list(graph.methods(config.depths))
        return write(graph, methods, path, config, describe(graph, methods, config, about), beside)
    if config.backend not in BACKENDS:
        raise UsageError(f"backend {config.backend!r} is not one of {', '.join((*BACKENDS, *FORMS))}")
    return _to_executorch(model, path, config, about, banned, calibration)


def _to_executorch(
    model: Any,
    path: Path,
    config: ExportConfig,
    about: Mapping[str, Any],
    banned: Sequence[int],
    calibration: Sequence[Sequence[int]],
) -> ExportResult:
    backend = BACKENDS[config.backend]
    backend.available().need()
    quantizer = backend.quantizer()
    _check_calibration(calibration, backend.name, quantizer)
    dialect = DIALECTS.get(backend.name, NATIVE)
    model = _in_fp32(model) if config.quantization is None else quantized(model, config.quantization, backend)
    model = with_integer_products(model) if is_quantized(model) else model
    graph = make_graph(dialect.write(model), config, banned)
    methods = list(graph.methods(config.depths))
    methods = [as_vectors(touching(graph, each)) for each in methods] if backend.vectors else methods
    description = describe(graph, methods, config, about)
    programs = {method.name: trace(graph, method, dialect) for method in methods}
    if quantizer is not None:
        programs = {m.name: rounded(programs[m.name], graph, m, quantizer, calibration) for m in methods}
    lowered = lower(programs, backend, description)
    left = {method.name: outside(lowered.exported_program(method.name)) for method in methods}
    for name, counts in left.items():
        check(name, counts, backend.name, backend.allowed)
    compiler().need()
    data = finish(lowered)
    write_atomic(path, data)
    digest = hashlib.sha256(data).hexdigest()
    whole = {**description, "program": {"file": path.name, "sha256": digest, "size_bytes": len(data)}}
    write_sealed_json(path.with_name(path.name + SUFFIX), whole)
    return ExportResult(
        path=path,
        size_bytes=len(data),
        sha256=digest,
        backend=config.backend,
        quantization=config.quantization,
        methods=tuple(method.name for method in methods),
        outside=left,
        description=whole,
    )


def _digest(model: Any) -> str:
    """Of the weights that the program was made from, by name, in their own number type."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        for part in _parts(value):
            found.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
            found.update(part.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _parts(value: Tensor) -> Iterator[Tensor]:
    """The tensors that a quantised one is made of, by PyTorch's protocol for such; else it alone."""
    if hasattr(value, "__tensor_flatten__"):
        for name in value.__tensor_flatten__()[0]:
            yield from _parts(getattr(value, name))
    else:
        yield value


def _in_fp32(model: Any) -> Any:
    """A graph computes in fp32, and so do its constants; a published checkpoint comes in bf16."""
    whole = is_quantized(model) or all(p.dtype == torch.float32 for p in model.parameters() if p.is_floating_point())
    return model if whole else copy.deepcopy(model).float()


def quantized(model: Any, name: str, backend: Backend) -> Any:
    """The model in a scheme that the backend computes as the eager one does."""
    scheme = find_scheme(name)
    taken = [each.name for each in SCHEMES.values() if each.delegates and not each.calibrated]
    if scheme.calibrated:
        raise UsageError(
            f"{name} is calibrated on texts: write the model by `quantize --scheme {name}`, then export that"
        )
    if not scheme.delegates or not backend.integers:
        able = ", ".join(taken) if backend.integers else "none"
        raise UsageError(f"{backend.name} does not compute {name}; it takes {able}")
    return quantize(model, scheme)


def trace(graph: Any, method: Method, dialect: Dialect) -> Any:
    """The method as an exported program of fixed shapes."""
    examples = tuple(port.example() for port in method.inputs)
    with torch.no_grad():
        program = torch.export.export(Bound(graph, method.function), examples, strict=False)
    return dialect.spell(program)


def lower(programs: Mapping[str, Any], backend: Backend, description: Mapping[str, Any]) -> Any:
    """To ExecuTorch's edge dialect, with the backend's parts cut out; facts become methods without inputs."""
    from executorch.exir import to_edge_transform_and_lower

    partitioners = {name: backend.partitioners() for name in programs}
    return to_edge_transform_and_lower(dict(programs), partitioner=partitioners, constant_methods=facts(description))


_SAID = ("format", "context", "block_size", "buckets", "depths", "eos_ids", "weights_sha256")


def facts(description: Mapping[str, Any]) -> dict[str, Any]:
    """What a program says of itself by methods of these names, for who has the .pte alone. No limit of length is 0."""
    model = description["model"]
    return {
        **{name: description[name] for name in _SAID},
        "max_length": description["max_length"] or 0,
        "mask_id": model["mask_id"],
        "vocab_size": model["vocab_size"],
        "description": json.dumps(description, ensure_ascii=False),
    }


def finish(lowered: Any) -> bytes:
    """The file's bytes. Methods share weights and buffers; what is written to a buffer is written in place."""
    from executorch.exir import ExecutorchBackendConfig
    from executorch.exir.passes import MemoryPlanningPass

    config = ExecutorchBackendConfig(
        memory_planning_pass=MemoryPlanningPass(share_mutable_buffers=True),
        emit_mutable_buffer_names=True,
        do_quant_fusion_and_const_prop=True,
        run_reinplace_pass=True,
    )
    data: bytes = lowered.to_executorch(config).buffer
    return data


def describe(graph: Graph, methods: list[Method], config: ExportConfig, about: Mapping[str, Any]) -> dict[str, Any]:
    """What whoever runs the program has to know, and cannot read off it."""
    spec = graph.denoiser.spec  # type: ignore[attr-defined]
    return {
        "format": FORMAT,
        "backend": config.backend,
        "quantization": config.quantization,
        "context": graph.context,
        "block_size": graph.block_size,
        "max_length": graph.max_length,
        "buckets": list(graph.buckets),
        "depths": list(config.depths),
        "banned": list(graph.banned),
        "eos_ids": list(spec.stop_ids),
        "model": {**asdict(spec), "contexts": None},
        "methods": {
            each.name: {"inputs": [asdict(p) for p in each.inputs], "outputs": [asdict(p) for p in each.outputs]}
            for each in methods
        },
        "versions": {name: version(name) for name in ("torch", RUNTIMES[config.backend])},
        **about,
    }


def _length(example: Tensor) -> int:
    if example.ndim != 2 or len(example) != 1:
        raise UsageError(f"an example input of shape {tuple(example.shape)}: ids (1, L) are needed")
    return example.shape[1]
