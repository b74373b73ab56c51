"""A quantised folder: the same model when opened again, small, and refused where a byte or tensor is not right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import diffulex_edge
from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.model import checkpoint
from diffulex_edge.quant import SCHEMES, find_scheme, quantize
from diffulex_edge.quant.folder import read_quantized, write_quantized
from diffulex_edge.tests import family_toys
from diffulex_edge.tests.conftest import TinyRun
from diffulex_edge.tests.test_quant_schemes import IDS, MODELS, _eco, _logits, _seen

pytest.importorskip("torchao")


@pytest.mark.parametrize("name", SCHEMES)
def test_a_folder_gives_the_same_model_again(name: str, tmp_path: Path) -> None:
    for family, make in MODELS.items():
        model = make()
        made = quantize(model, SCHEMES[name], _seen(model))
        write_quantized(tmp_path / family, made, SCHEMES[name], tmp_path, "words")
        again = read_quantized(checkpoint.find(tmp_path / family))
        assert torch.equal(_logits(again), _logits(made))
        assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in made.parameters())


def test_layers_whose_activations_were_kept_are_kept_again(tmp_path: Path) -> None:
    for name in ("dynamic_int8", "static_int8"):
        model = _eco()
        made = quantize(model, SCHEMES[name], _seen(model), weights_only=("ends.head", "layers.1.gate"))
        write_quantized(tmp_path / name, made, SCHEMES[name], tmp_path, "words")
        assert torch.equal(_logits(read_quantized(tmp_path / name)), _logits(made))


def test_four_bits_take_half_a_byte(tmp_path: Path) -> None:
    model = _eco()
    sizes = {}
    for name in ("dynamic_int8", "dynamic_int4"):
        scheme = find_scheme(name, embedding_bits=4)
        sizes[name] = write_quantized(tmp_path / name, quantize(model, scheme), scheme, tmp_path, "words")
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    numbers = sum(m.weight.numel() for m in layers) + model.ends.tokens.weight.numel()  # and the head
    rows = sum(m.out_features for m in layers) + 96
    assert sizes["dynamic_int8"] - sizes["dynamic_int4"] == numbers - numbers // 2 + 4 * rows - 2 * numbers // 32


def _spoil(folder: Path, change: Any) -> Path:
    """The folder with its tensors or config changed and a manifest that fits: what only the reader can notice."""
    values, config = (
        checkpoint.read_tensors(folder / "model.safetensors"),
        json.loads((folder / "config.json").read_text()),
    )
    change(values, config)
    writers = {"model.safetensors": checkpoint.tensors(values), "config.json": checkpoint.document(config)}
    checkpoint.write(folder.with_name("spoilt"), writers)
    return folder.with_name("spoilt")


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    model = _eco()
    for name in ("dynamic_int4", "static_int8"):
        write_quantized(tmp_path / name, quantize(model, SCHEMES[name], _seen(model)), SCHEMES[name], tmp_path, "words")
    head = "ends.head.codes"
    cases: list[tuple[str, str, Any]] = [
        ("dynamic_int4", r"ends.head.codes is missing", lambda v, c: v.pop(head)),
        ("dynamic_int4", r"1 tensors do not fit the model: extra", lambda v, c: v.update(extra=v[head][:1].clone())),
        ("dynamic_int4", r"ends.head.codes is torch.uint8 \(95, 32\)", lambda v, c: v.update({head: v[head][1:]})),
        ("dynamic_int4", r"codes is torch.int8", lambda v, c: v.update({head: v[head].to(torch.int8)})),
        ("dynamic_int4", r"head.scale is \(96, 3\)", lambda v, c: v.update({"ends.head.scale": torch.ones(96, 3)})),
        ("dynamic_int4", r"slots0 is .*\(1, 64\), not \(4, 64\)", lambda v, c: v.update(slots0=v["slots0"][:1])),
        (
            "static_int8",
            r"head.after is \[nan",
            lambda v, c: v.update({"ends.head.after": torch.full((2,), torch.nan)}),
        ),
        ("static_int8", r"quantization is not a scheme: .*int7", lambda v, c: c["quantization"].update(scheme="int7")),
        ("static_int8", r"quantization is not a scheme", lambda v, c: c.update(quantization=[])),
        ("static_int8", r"is missing|is torch", lambda v, c: c["quantization"].update(embedding_bits=4)),
    ]
    for name, said, change in cases:
        with pytest.raises(ArtefactError, match=said):
            read_quantized(_spoil(tmp_path / name, change))


def test_a_flipped_bit_is_refused_before_anything_is_read(tiny_run: TinyRun, tmp_path: Path) -> None:
    denoiser, words = diffulex_edge.load(tiny_run.run)
    scheme = SCHEMES["weight_only_int8"]
    write_quantized(
        tmp_path / "q", quantize(denoiser, scheme), scheme, checkpoint.find(tiny_run.run), words.fingerprint
    )
    again, _ = diffulex_edge.load(tmp_path / "q")
    assert type(again).__name__ == type(denoiser).__name__
    shutil.copytree(tmp_path / "q", tmp_path / "bad")
    data = bytearray((tmp_path / "bad/model.safetensors").read_bytes())
    data[-7] ^= 4
    (tmp_path / "bad/model.safetensors").write_bytes(data)
    with pytest.raises(ArtefactError, match=r"model.safetensors: corrupt"):
        diffulex_edge.load(tmp_path / "bad")


@pytest.mark.parametrize("name", ["llada", "fast_dllm_v2"])  # a head of its own; a head that is the embedding
def test_a_published_model_is_quantised_and_opened_with_its_tokenizer(name: str, tmp_path: Path) -> None:
    family = family_toys.FAMILIES[name]
    family_toys.write_folder(tmp_path / "hub", family, family_toys.hub_model(family), dtype=torch.bfloat16)
    denoiser, words = diffulex_edge.load(tmp_path / "hub")
    scheme = find_scheme("dynamic_int8")
    made = quantize(denoiser, scheme)
    write_quantized(tmp_path / "q", made, scheme, tmp_path / "hub", words.fingerprint)
    again, same = diffulex_edge.load(tmp_path / "q")
    assert (same.fingerprint, same.mask_id, again.spec) == (words.fingerprint, words.mask_id, denoiser.spec)
    assert torch.equal(again(IDS)[0], made(IDS)[0])
    plain = denoiser(IDS)[0].float()
    assert 0 < float((made(IDS)[0] - plain).norm() / plain.norm()) < 0.1


def test_a_model_of_no_family_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Linear is not of a family that can be written"):
        write_quantized(tmp_path / "q", torch.nn.Linear(2, 2), SCHEMES["dynamic_int8"], tmp_path, "words")
    assert not (tmp_path / "q").exists()
