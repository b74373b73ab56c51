"""OpenVINO's own program of a model, a folder that `export --backend openvino_ir` wrote: called by method name.

What `Program` is for a .pte. The memory of the text is kept here, between the calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import ArtefactError, BackendUnavailable
from diffulex_edge.files import read_json
from diffulex_edge.model import checkpoint
from diffulex_edge.runtime.program import checked, empty

PROGRAM = "program.json"


def is_openvino_folder(path: Path) -> bool:
    return (path / PROGRAM).is_file()


class OpenvinoProgram:
    """An open program: one text at a time, in one thread of the caller's."""

    def __init__(self, folder: str | Path, *, threads: int | None = None) -> None:
        """threads: of the operators; None: one a core.

        Raises ArtefactError where a file is damaged or missing, BackendUnavailable without openvino.
        """
        self.path = Path(folder)
        files = checkpoint.verify(self.path)
        self.description = checked(read_json(self.path / PROGRAM), self.path / PROGRAM)
        for name in self.description["methods"]:
            if not {f"{name}.xml", f"{name}.bin"} <= set(files):
                raise ArtefactError(f"{self.path}: the method {name!r}, which its description names, is not there")
        self._openvino, self._threads = _openvino(), threads
        self._core = self._openvino.Core()
        self._methods: dict[str, Any] = {}
        self._memory = [empty(port).numpy() for port in self.description["memory"]]  # what every method reads

    def call(self, name: str, *inputs: Tensor) -> list[Any]:
        """What a method gives for its inputs. Raises BackendUnavailable where OpenVINO fails in it."""
        if name not in self._methods:
            self._methods[name] = self._open(name)
        request, slots = self._methods[name]
        for slot, value in zip(slots, inputs, strict=True):
            slot.data[...] = value.numpy()
        try:
            request.infer()
        except RuntimeError as error:
            raise BackendUnavailable(f"{self.path}: OpenVINO cannot run {name} ({error})") from None
        outputs = len(self.description["methods"][name]["outputs"])
        if name in self.description["keeps"]:
            for kept, tensor in zip(self._memory, request.output_tensors[outputs:], strict=True):
                kept[...] = tensor.data
        return [torch.from_numpy(tensor.data.copy()) for tensor in request.output_tensors[:outputs]]

    def _open(self, name: str) -> tuple[Any, list[Any]]:
        """A request of the method that reads the memory where it lies, and where its inputs are to be put."""
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if self.description["quantization"] == "bf16" else "f32",
        }
        if self._threads is not None:
            options["INFERENCE_NUM_THREADS"] = self._threads
        ports = self.description["methods"][name]["inputs"]
        shapes = [port["shape"] for port in (*ports, *self.description["memory"])]
        try:
            model = self._core.read_model(self.path / f"{name}.xml")
            model.reshape(dict(enumerate(shapes)))  # the file itself takes any, which costs a tenth of the speed
            request = self._core.compile_model(model, "CPU", options).create_infer_request()
            for place, kept in enumerate(self._memory, len(ports)):
                request.set_input_tensor(place, self._openvino.Tensor(kept, shared_memory=True))
            return request, list(request.input_tensors[: len(ports)])
        except RuntimeError as error:
            raise ArtefactError(f"{self.path / name}.xml: OpenVINO cannot open it ({error})") from None


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise BackendUnavailable("this program needs openvino: pip install 'diffulex-edge[openvino]'") from None
    return openvino
