"""Core ML's own package: the program that coremltools is given computes what eager does, and what it makes is whole.

Core ML itself runs on Apple's machines alone, so nothing here runs a package.
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffulex_edge import load
from diffulex_edge.backends import base
from diffulex_edge.cli.main import main
from diffulex_edge.errors import ArtefactError, BackendUnavailable, UsageError
from diffulex_edge.export import ExportConfig, export_model
from diffulex_edge.export.dialect import NATIVE
from diffulex_edge.export.exporter import describe
from diffulex_edge.export.mlpackage import MLPACKAGE, entry_program, ports, verify_package
from diffulex_edge.export.shapes import make_graph
from diffulex_edge.export.stateless import memory_ports
from diffulex_edge.runtime.program import empty
from diffulex_edge.runtime.pte import PteDenoiser
from diffulex_edge.tests import export_toys as toys

pytestmark = pytest.mark.export
SHAPES: dict[str, Any] = {"backend": MLPACKAGE, "block_size": toys.BLOCK, "max_length": 4 * toys.BLOCK}


class Given:
    """The programs that coremltools is given, run by PyTorch in the way in which an app calls the package."""

    def __init__(self, name: str) -> None:
        config = ExportConfig(**SHAPES)
        graph = make_graph(NATIVE.write(toys.model(name)), config)
        self.methods = {method.name: method for method in graph.methods(())}
        self.description = describe(graph, list(self.methods.values()), config, {})
        self.programs = {name: entry_program(graph, method).module() for name, method in self.methods.items()}
        self.inputs = {name: ports(graph, method)[0] for name, method in self.methods.items()}
        self.memory = [empty(asdict(port)) for port in memory_ports(graph)]

    def call(self, name: str, *inputs: Tensor) -> list[Tensor]:
        method = self.methods[name]
        kinds = [(port.shape, getattr(torch, port.dtype)) for port in self.inputs[name][: len(inputs)]]
        passed = [value.reshape(shape).to(dtype) for value, (shape, dtype) in zip(inputs, kinds, strict=True)]
        found = list(self.programs[name](*passed, *self.memory))
        outputs = len(method.outputs)
        if method.keeps:
            self.memory = found[outputs:]
        return [value.long() if not value.is_floating_point() else value for value in found[:outputs]]


@pytest.mark.parametrize("name", toys.KINDS)
def test_what_coremltools_is_given_equals_eager_over_three_blocks(name: str) -> None:
    denoiser = PteDenoiser(Given(name))
    with torch.no_grad():
        for kind in denoiser.kinds:
            assert toys.gap(toys.looks(denoiser, kind), toys.looks(toys.model(name), kind)) < 1e-4


@pytest.fixture(scope="module", params=["eco", "sdar", "llada"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each kind of context."""
    path = tmp_path_factory.mktemp("apple") / f"{request.param}.{MLPACKAGE}"
    return export_model(toys.model(request.param), output_path=path, **SHAPES).path


def test_a_package_has_a_function_a_method_by_the_names_of_its_description(package: Path) -> None:
    import coremltools

    about = verify_package(package)
    functions = coremltools.models.MLModel(str(package), skip_model_load=True).get_spec().description.functions
    assert [function.name for function in functions] == list(about["methods"])
    for function in functions:
        method = about["methods"][function.name]
        for side, told in (("input", "inputs"), ("output", "outputs")):
            shapes = {each.name: list(each.type.multiArrayType.shape) for each in getattr(function, side)}
            assert shapes == {port["name"]: port["shape"] for port in method[told]}
    weights = list(package.rglob("weight.bin"))
    parameters = sum(p.numel() for p in toys.model(package.stem).parameters())
    assert len(weights) == 1
    assert weights[0].stat().st_size < 1.5 * 2 * parameters + 2**14  # in fp16, once for all functions


def test_a_damaged_package_is_told(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy, chance = tmp_path / package.name, random.Random(0)
    shutil.copytree(package, copy)
    shutil.copy(package.with_name(f"{package.name}.json"), tmp_path)
    assert main(["peek", str(copy), "--json", str(tmp_path / "told.json")]) == 0
    assert json.loads((tmp_path / "told.json").read_text())["backend"] == MLPACKAGE
    for path in [path for path in copy.rglob("*") if path.is_file()]:
        data = path.read_bytes()
        for _ in range(20):
            bad = bytearray(data)
            bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
            path.write_bytes(bad)
            with pytest.raises(ArtefactError, match=path.name):
                verify_package(copy)
        path.unlink()
        with pytest.raises(ArtefactError, match=path.name):
            verify_package(copy)
        path.write_bytes(data)
    with pytest.raises(BackendUnavailable, match="an app on macOS or iOS runs it"):
        load(copy)
    (copy / "more").touch()
    capsys.readouterr()
    assert main(["peek", str(copy)]) == 3
    assert "more: missing, damaged or not of the package" in capsys.readouterr().err


def test_integer_weights_are_half_as_large(tmp_path: Path) -> None:
    model = toys.toys.eco(n_layers=1, d_model=128, local_attn_layers=())
    sizes = []
    for scheme in (None, "weight_only_int8"):
        path = tmp_path / f"{scheme}.{MLPACKAGE}"
        export_model(model, output_path=path, quantization=scheme, **SHAPES)
        sizes.append(sum(file.stat().st_size for file in path.rglob("weight.bin")))
    assert sizes[1] < 0.6 * sizes[0]


def test_what_does_not_fit_is_refused_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, place = toys.model("eco"), dict[str, Any](output_path=tmp_path / f"x.{MLPACKAGE}", backend=MLPACKAGE)
    with pytest.raises(UsageError, match="mlpackage does not compute dynamic_int8; it takes weight_only_int8"):
        export_model(model, quantization="dynamic_int8", **place)
    with pytest.raises(UsageError, match="whose names end in .mlpackage"):
        export_model(model, output_path=tmp_path / "x.pte", backend=MLPACKAGE)
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"mlpackage needs coremltools: pip install 'diffulex-edge\[export\]'"):
        export_model(model, **place)
    assert not list(tmp_path.iterdir())
