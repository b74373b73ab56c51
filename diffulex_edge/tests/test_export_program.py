"""A program on the disk: what is in it, what of it the backend took, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from diffulex_edge import load
from diffulex_edge.errors import ArtefactError, BackendUnavailable, UsageError
from diffulex_edge.export import ExportConfig, export_model
from diffulex_edge.export.delegation import OUTSIDE
from diffulex_edge.export.exporter import facts
from diffulex_edge.export.shapes import make_graph
from diffulex_edge.runtime.program import Program
from diffulex_edge.runtime.pte import PteDenoiser
from diffulex_edge.tests import export_toys as toys

pytestmark = pytest.mark.export


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A program of its own, with its description."""
    source = toys.program("eco").path
    for path in (source, source.with_name(source.name + ".json")):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / source.name


@pytest.mark.parametrize("name", toys.KINDS)
def test_the_delegate_takes_all_but_the_allowed(name: str) -> None:
    result = toys.program(name)
    assert set(result.outside) == set(result.methods)
    for counts in result.outside.values():
        assert set(counts) <= OUTSIDE
        assert not {"linear", "addmm", "mm", "bmm", "convolution", "native_layer_norm", "_softmax"} & set(counts)


def test_what_is_written_says_what_is_in_it() -> None:
    result, program = toys.program("eco"), Program(toys.program("eco").path)
    assert result.size_bytes == result.path.stat().st_size
    spec, told = toys.model("eco").spec, json.loads(program.call("description")[0])
    assert told["model"]["vocab_size"] == spec.vocab_size
    for name, fact in facts(told).items():
        assert program.call(name) == (fact if isinstance(fact, list) else [fact])
    assert program.call("mask_id") == [spec.mask_id] and program.call("eos_ids") == list(spec.stop_ids)
    assert set(result.methods) == {"denoise", "commit", "logits"}


def test_weights_are_in_the_file_once() -> None:
    weights = sum(p.numel() * 4 for p in toys.model("llada").parameters())
    assert toys.program("llada").size_bytes < 1.5 * weights + 4 * 60_000  # four methods' graphs


def test_a_program_of_fewer_layers_at_a_step() -> None:
    denoiser = PteDenoiser(toys.program("eco", depths=(1,)).path)
    block = toys.text(denoiser)[:, : toys.BLOCK].clone()
    block[:, 2:] = denoiser.spec.mask_id
    context = denoiser.begin("memory", 1, toys.BLOCK)
    t = torch.ones(1)
    asks: dict[str, Any] = {"t": t, "asked": toys.BLOCK, "count": toys.BLOCK, "threshold": 2.0}
    with torch.no_grad():
        for depth in (1, 2):
            logits, _ = toys.model("eco")(block, toys.model("eco").begin("memory", 1, toys.BLOCK), t=t, depth=depth)
            logits[..., denoiser.spec.mask_id] = -torch.inf
            shown, sure, _ = denoiser.reveal(block, context, depth=depth, **asks)
            assert torch.equal(shown[:, 2:], logits.argmax(-1)[:, 2:])
            assert torch.allclose(sure, logits.softmax(-1).amax(-1), atol=1e-5)
    with pytest.raises(UsageError, match="no method of 3 layers"):
        denoiser.reveal(block, context, depth=3, **asks)


@pytest.mark.parametrize("change", ["flip", "cut", "grow"])
def test_a_damaged_program_is_refused_before_it_is_parsed(copied: Path, change: str) -> None:
    data = bytearray(copied.read_bytes())
    data[len(data) // 2] ^= 1
    copied.write_bytes({"flip": data, "cut": data[:-9], "grow": data + b"0"}[change])
    with pytest.raises(ArtefactError, match=r"sha256|bytes"):
        PteDenoiser(copied)


def test_a_damaged_description_is_refused(copied: Path) -> None:
    beside = copied.with_name(copied.name + ".json")
    beside.write_text(beside.read_text().replace('"block_size": 8', '"block_size": 9'))
    with pytest.raises(ArtefactError, match=beside.name):
        PteDenoiser(copied)


def test_a_program_without_its_description_is_tried_in_a_child_first(copied: Path) -> None:
    copied.with_name(copied.name + ".json").unlink()
    assert PteDenoiser(copied).block_size == toys.BLOCK
    copied.write_bytes(copied.read_bytes()[:4000])
    with pytest.raises(ArtefactError, match="damaged"):
        PteDenoiser(copied)


def test_what_a_program_cannot_do_is_said() -> None:
    denoiser = PteDenoiser(toys.program("sdar").path)
    with pytest.raises(UsageError, match="one text at a time"):
        denoiser.begin("kv", 2, 8)
    with pytest.raises(UsageError, match="'canvas' is not one of this program's: kv"):
        denoiser.begin("canvas", 1, 8)
    with pytest.raises(UsageError, match="longer than the 32"):
        denoiser.begin("kv", 1, 40)
    old = denoiser.begin("kv", 1, 8)
    denoiser.begin("kv", 1, 8)
    with pytest.raises(UsageError, match="remembers one text"):
        denoiser(toys.text(denoiser)[:, : toys.BLOCK], old)


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = toys.model("sdar")
    for wrong, said in (
        ({"block_size": 6}, "not a multiple of 4"),
        ({"max_length": 33, "block_size": 8}, "not a multiple of block_size=8"),
        ({"context": "canvas"}, "cannot be exported; it has kv"),
        ({"buckets": (16,), "max_length": 32}, "a program of context 'kv' has none"),
        ({"prefill": 12, "block_size": 8, "max_length": 32}, "prefill=12 is not a multiple of block_size=8"),
        ({"depths": (3,), "max_length": 32}, "below the model's 3 layers"),
        ({"backend": "abacus"}, "is not one of xnnpack"),
        ({"quantization": "weight_only_int8"}, "xnnpack does not compute weight_only_int8; it takes dynamic_int8"),
        ({"quantization": "static_int8"}, "write the model by `quantize"),
        ({"quantization": "int3"}, "'int3' is not one of"),
        ({"calibration": [[5, 6]]}, "xnnpack .* takes no calibration texts"),
    ):
        with pytest.raises(UsageError, match=said):
            export_model(model, output_path=tmp_path / "x.pte", **wrong)
    for length in (4, 32):
        with pytest.raises(UsageError, match=f"buckets hold {length}: each is at least block_size=8 and below"):
            make_graph(toys.model("llada"), ExportConfig(block_size=8, max_length=32, buckets=(length,)))
    assert not list(tmp_path.iterdir())


def test_lengths_that_have_methods_of_their_own() -> None:
    for length, buckets in ((512, [128, 256, 512]), (160, [160]), (256, [128, 256])):
        assert make_graph(toys.toys.backup(), ExportConfig(max_length=length)).buckets == buckets
    for prefill in (0, 128):
        config = ExportConfig(max_length=256, prefill=prefill)
        methods = [each.name for each in make_graph(toys.model("sdar"), config).methods(())]
        assert ("prefill" in methods) == bool(prefill)


@pytest.mark.parametrize("name", ["eco", "sdar", "llada"])
def test_coreml_takes_a_graph_whole_and_says_that_it_does_not_run_here(name: str, tmp_path: Path) -> None:
    shapes: dict[str, Any] = {"block_size": toys.BLOCK, "max_length": 4 * toys.BLOCK}
    result = export_model(toys.model(name), output_path=tmp_path / "apple.pte", backend="coreml", **shapes)
    assert all(set(counts) <= {"getitem"} for counts in result.outside.values())
    denoiser = PteDenoiser(result.path)
    if sys.platform != "darwin":
        with pytest.raises(BackendUnavailable, match="made for coreml, which does not run here"):
            denoiser(toys.text(denoiser)[:, : toys.BLOCK])


def test_on_windows_export_stops_behind_the_edge_dialect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(BackendUnavailable, match="flatc"):
        export_model(toys.toys.eco(n_layers=1, local_attn_layers=()), output_path=tmp_path / "x.pte", block_size=8)
    assert not list(tmp_path.iterdir())


def test_the_shipped_model_as_a_folder_that_is_all_one_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffulex_edge.cli.main import main

    path = tmp_path / "out" / "model.pte"
    assert main(["export", "--output", str(path), "--json", str(tmp_path / "told.json")]) == 0
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["size_bytes"] == path.stat().st_size
    ours = [
        "sample",
        "--temperature",
        "0",
        "--max_new_tokens",
        "40",
        "--prompt",
        "मैं कल",
        "--blockwise",
        "--frozen_context",
    ]
    texts = []
    for extra in (["--pte", str(path)], []):
        assert main([*ours, *extra, "--json", str(tmp_path / "text.json")]) == 0
        texts.append(json.loads((tmp_path / "text.json").read_text())["text"])
    assert texts[0] == texts[1]
    assert load(path)[0].spec.sampling == load()[0].spec.sampling
    assert load(path)[1].fingerprint == load()[1].fingerprint
    (path.parent / "tokenizer.model").write_bytes(b"another")
    with pytest.raises(ArtefactError):
        load(path)
    assert main(["export", "--output", str(path)]) == 2
    assert "another tokenizer" in capsys.readouterr().err
