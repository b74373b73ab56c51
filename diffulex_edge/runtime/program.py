"""A .pte file and the description beside it: checked before it is parsed, loaded, called by method name.

ExecuTorch's parser trusts its input: a damaged file can end the process. So a file with a description is hashed first,
and one without is tried in a child process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffulex_edge import machine
from diffulex_edge.errors import ArtefactError, BackendUnavailable
from diffulex_edge.files import read_sealed_json, sha256_file

FORMATS = ("diffulex-edge-program/1",)
SUFFIX = ".json"
_FACT: dict[str, Any] = {"inputs": ()}  # what is told of the program, by a method of its name
_TRIAL_S = 300  # seconds that a file of unknown origin may take in its child process


class Program:
    """An open program. Its methods share one memory, so it serves one text at a time, in one thread."""

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        """threads: of the operators; None: as ExecuTorch chooses. They are the process's, set before anything loads."""
        self.path = Path(path)
        beside = self.path.with_name(self.path.name + SUFFIX)
        described = beside.exists()
        if described:
            self.description = read_description(self.path)
        else:
            _try_in_child(self.path)
        self._program = _load(self.path, threads)
        self._methods: dict[str, Any] = {}
        if not described:
            self.description = checked(json.loads(self._open("description")([])[0]), self.path)
        there = {self._program.get_method_name(i) for i in range(self._program.num_methods())}
        missing = sorted(set(self.description["methods"]) - there)
        if missing:
            raise ArtefactError(f"{self.path}: the method {missing[0]!r}, which its description names, is not there")

    def call(self, name: str, *inputs: Tensor) -> list[Any]:
        """What a method gives for its inputs, or what a fact is, such as `mask_id`.

        Tensors are the program's own memory, good until the method is called again.
        """
        if name not in self._methods:
            self._methods[name] = self._open(name)
        ports = self.description["methods"].get(name, _FACT)["inputs"]
        passed = [value.reshape(port["shape"]) for value, port in zip(inputs, ports, strict=True)]
        found: list[Any] = list(self._methods[name](passed, clone_outputs=False))
        return found

    def _open(self, name: str) -> Any:
        try:
            return self._program.load_method(name)
        except RuntimeError as error:
            backend = self.description.get("backend")
            raise BackendUnavailable(f"{self.path}: made for {backend}, which does not run here ({error})") from None


def read_description(path: Path) -> dict[str, Any]:
    """The description beside a program, after both were checked: its seal, and the program's size and digest by it."""
    beside = path.with_name(path.name + SUFFIX)
    description = checked(read_sealed_json(beside), beside)
    program = description.get("program")
    if not isinstance(program, dict) or not {"sha256", "size_bytes"} <= set(program):
        raise ArtefactError(f"{beside}: says nothing of the program's size and sha256")
    if not path.is_file():
        raise ArtefactError(f"{path}: no such file")
    if path.stat().st_size != program["size_bytes"]:
        raise ArtefactError(f"{path}: has {path.stat().st_size} bytes, {beside.name} says {program['size_bytes']}")
    if sha256_file(path) != program["sha256"]:
        raise ArtefactError(f"{path}: its sha256 is not the one in {beside.name}, so it was changed or damaged")
    return description


def empty(port: dict[str, Any]) -> Tensor:
    """Zeros of the shape and number type that a description gives of an input, an output or a buffer."""
    return torch.zeros(port["shape"], dtype=getattr(torch, port["dtype"]))


def checked(description: Any, source: Path) -> dict[str, Any]:
    """The description, if it is of a format that is known and says what a program needs; else ArtefactError."""
    if not isinstance(description, dict) or description.get("format") not in FORMATS:
        told = description.get("format") if isinstance(description, dict) else description
        raise ArtefactError(f"{source}: format {told!r} is not one of {', '.join(FORMATS)}")
    missing = {"model", "methods", "context", "block_size", "max_length", "banned"} - set(description)
    if missing:
        raise ArtefactError(f"{source}: says nothing of {sorted(missing)[0]}")
    return description


def _load(path: Path, threads: int | None) -> Any:
    native = core()
    if (library := machine.delegates_openvino()) is not None:
        os.environ.setdefault("OPENVINO_LIB_PATH", str(library))
    if threads is not None:
        with _silent():
            native._unsafe_reset_threadpool(threads)
    try:
        return native._load_program(
            str(path),
            enable_etdump=False,
            debug_buffer_size=0,
            program_verification=native.Verification.InternalConsistency,
            data_path=None,
        )
    except RuntimeError as error:
        raise ArtefactError(f"{path}: not a program that ExecuTorch can load ({error})") from None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps standard error from C++ that tells what it reads of the processor: six lines a start."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def core() -> Any:
    """ExecuTorch's own C++, without its Python package `executorch.runtime`: that imports the exporter, for 4 s."""
    try:
        import executorch.kernels.quantized  # noqa: F401 (embeddings in int8 and int4 are its operators)
        from executorch.extension.pybindings import _C
    except ImportError:
        raise BackendUnavailable("a .pte needs executorch: pip install 'diffulex-edge[export]'") from None
    return _C


def _try_in_child(path: Path) -> None:
    """Loads the program and calls each of its methods once, where a crash does no harm."""
    if not path.is_file():
        raise ArtefactError(f"{path}: no such file")
    code = f"from diffulex_edge.runtime.program import trial; trial({str(path)!r})"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_TRIAL_S)
    except subprocess.TimeoutExpired:
        raise ArtefactError(f"{path}: could not be loaded within {_TRIAL_S} seconds") from None
    if done.returncode:
        raise ArtefactError(f"{path}: not a program of this package, or damaged (exit {done.returncode} when tried)")


def trial(path: str) -> None:
    """What the child process does."""
    program = _load(Path(path), None)
    description = checked(json.loads(program.load_method("description")([])[0]), Path(path))
    for name, method in description["methods"].items():
        program.load_method(name)([empty(port) for port in method["inputs"]])
