"""QNN as far as it goes without the vendor's SDK: graphs rounded by its quantiser, then an error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from diffulex_edge.backends import BACKENDS
from diffulex_edge.backends.qnn_backend import LIBRARY, ROOT
from diffulex_edge.errors import BackendUnavailable, UsageError
from diffulex_edge.export import export_model
from diffulex_edge.export.config import ExportConfig
from diffulex_edge.export.dialect import NATIVE
from diffulex_edge.export.exporter import trace
from diffulex_edge.export.rounding import rounded
from diffulex_edge.export.shapes import make_graph
from diffulex_edge.tests import export_toys as toys

pytestmark = pytest.mark.filterwarnings("ignore")
QNN = BACKENDS["qnn"]


@pytest.fixture
def no_sdk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv(ROOT, "")
    return monkeypatch


def _made(name: str, method: str) -> tuple[Any, Any, Any]:
    """The graph, the method, and it rounded, over texts of the toy's words."""
    model = toys.model(name)
    shapes = ExportConfig(block_size=toys.BLOCK, max_length=4 * toys.BLOCK, **toys.SHAPES[toys.KINDS[name]])
    graph: Any = make_graph(NATIVE.write(model), shapes)
    wanted = next(each for each in graph.methods(()) if each.name == method)
    texts = [toys.text(model, seed, 4)[0].tolist() for seed in range(16)]
    return graph, wanted, rounded(trace(graph, wanted, NATIVE), graph, wanted, QNN.quantizer(), texts)


@pytest.mark.export
@pytest.mark.parametrize(("name", "method"), [("sdar", "prefill"), ("llada", "look_of_24")])
def test_methods_of_other_lengths_are_rounded_too(name: str, method: str, no_sdk: pytest.MonkeyPatch) -> None:
    _, wanted, program = _made(name, method)
    found = program.module()(*(port.example() for port in wanted.inputs))
    found = found if isinstance(found, tuple) else (found,)
    assert [value.shape for value in found] == [port.shape for port in wanted.outputs]
    assert all(bool(value.isfinite().all()) for value in found)


@pytest.mark.export
@pytest.mark.parametrize("name", ["eco", "sdar", "llada"])
def test_a_graph_that_its_quantiser_rounded_says_nearly_what_the_model_says(
    name: str, no_sdk: pytest.MonkeyPatch
) -> None:
    graph, method, program = _made(name, "logits")
    ids = toys.text(toys.model(name))
    half = ids.masked_fill(torch.arange(ids.shape[1])[None] % 2 == 0, graph.denoiser.spec.mask_id)
    canvas = torch.nn.functional.pad(half, (0, 4 * toys.BLOCK - ids.shape[1]), value=graph.denoiser.spec.mask_id)
    known = {
        "block": half[:, : toys.BLOCK],
        "canvas": canvas,
        "start": torch.tensor(0),
        "stop": torch.tensor(ids.shape[1]),
    }
    inputs = [known[port.name] for port in method.inputs]
    with torch.no_grad():
        right, found = method.function(*inputs), program.module()(*inputs)
    assert 1e-6 < float((found - right).norm() / right.norm()) < 0.05, "rounded, and not by much"
    targets = [str(node.target) for node in program.graph.nodes]
    assert sum("dequantize" in target for target in targets) > 20


@pytest.mark.export
def test_ranges_want_texts_of_two_blocks(no_sdk: pytest.MonkeyPatch) -> None:
    model = toys.model("eco")
    graph: Any = make_graph(NATIVE.write(model), ExportConfig(block_size=toys.BLOCK))
    method = next(each for each in graph.methods(()) if each.name == "logits")
    with pytest.raises(UsageError, match="1 calibration texts of two blocks"):
        rounded(trace(graph, method, NATIVE), graph, method, QNN.quantizer(), [[5] * toys.BLOCK])


def test_without_the_sdk_the_error_names_it(tmp_path: Path, no_sdk: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailable, match=f"AI Engine Direct SDK.*set {ROOT}"):
        export_model(toys.model("eco"), output_path=tmp_path / "x.pte", backend="qnn")
    no_sdk.setenv(ROOT, str(tmp_path))
    assert f"{ROOT}={tmp_path} holds no {LIBRARY}" in QNN.available().reason
    assert not QNN.runs()
