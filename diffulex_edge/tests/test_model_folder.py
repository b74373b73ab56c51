"""Published folders: all of a good one is placed, a bad one is refused by name, and nothing in it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import diffulex_edge
from diffulex_edge.cli.main import main
from diffulex_edge.errors import ArtefactError, ResourceError
from diffulex_edge.model.families import config_class
from diffulex_edge.model.folder import load_published
from diffulex_edge.model.llada_edge import LLaDAEdge, LLaDAEdgeConfig
from diffulex_edge.tests import family_toys as toys

SHARD = "model-00002-of-00003.safetensors"


@pytest.fixture(params=list(toys.FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    family = toys.FAMILIES[request.param]
    return toys.write_folder(tmp_path / "model", family, toys.hub_model(family), shards=3)


def config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def resize(folder: Path, **changes: Any) -> None:
    """Of these the fields that the family has."""
    has = json.loads((folder / "config.json").read_text())
    config(folder, **{name: value for name, value in changes.items() if name in has})


def drop(folder: Path, *names: str) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if k not in names}))


def hollow(folder: Path) -> None:
    without(folder, "model.safetensors.index.json")
    save_file({}, folder / "model.safetensors")


def tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    values = load_file(folder / SHARD)
    change(values)
    save_file(values, folder / SHARD)


def cut(folder: Path) -> None:
    whole = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(whole[: len(whole) // 2])


def without(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).unlink()


def first(values: dict[str, torch.Tensor]) -> str:
    return min(values)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing shard": (lambda f: without(f, SHARD), SHARD),
    "no weights": (lambda f: without(f, *(p.name for p in f.glob("*.safetensors*"))), "model.safetensors"),
    "an extra tensor": (lambda f: tensors(f, lambda v: v.update(extra=torch.zeros(2))), "extra"),
    "a missing tensor": (lambda f: tensors(f, lambda v: v.pop(first(v))), SHARD),
    "a wrong shape": (lambda f: tensors(f, lambda v: v.update({first(v): torch.zeros(3, 5)})), "config.json wants"),
    "a truncated file": (cut, SHARD),
    "numbers of another kind": (
        lambda f: tensors(f, lambda v: v.update({first(v): v[first(v)].to(torch.int8)})),
        "I8",
    ),
    "code of strangers": (lambda f: config(f, auto_map={"AutoModel": "evil.Model"}), "evil.Model"),
    "a pickle": (lambda f: (f / "pytorch_model.bin").write_bytes(b""), "pytorch_model.bin"),
    "an unknown family": (lambda f: config(f, model_type="gpt2"), "gpt2"),
    "no family": (lambda f: config(f, model_type=None), "model_type"),
    "an unknown field": (lambda f: config(f, attention_sinks=4), "attention_sinks"),
    "another activation": (lambda f: config(f, hidden_act="gelu", activation_type="gelu"), "gelu"),
    "scaled positions": (lambda f: config(f, rope_scaling={"type": "linear", "factor": 2}), "rope_scaling"),
    "new scaled positions": (
        lambda f: config(f, rope_parameters={"rope_type": "yarn", "factor": 2}),
        "rope_parameters",
    ),
    "a sliding window": (lambda f: config(f, use_sliding_window=True), "use_sliding_window"),
    "layers of another kind": (lambda f: config(f, layer_types=["full_attention", "sliding_attention"]), "layer_types"),
    "sizes that are words": (lambda f: config(f, rms_norm_eps="big"), "config.json"),
    "a shard outside": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../a.safetensors"}}'),
        "weight_map",
    ),
    "no tokenizer": (lambda f: without(f, "tokenizer.json"), "tokenizer"),
    "a config that is no object": (lambda f: (f / "config.json").write_text("[1]"), "config.json"),
    "a config that is no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "heads that do not divide": (lambda f: resize(f, num_key_value_heads=3, n_kv_heads=3), "evenly"),
    "a size of none": (lambda f: resize(f, num_hidden_layers=0, n_layers=0), "at least 1"),
    "heads that nobody counted": (lambda f: drop(f, "num_attention_heads", "n_heads"), "is missing"),
    "positions that do not turn": (lambda f: config(f, rope_theta=0), "rope_theta"),
    "norms that divide by nothing": (lambda f: config(f, rms_norm_eps=-1e-6), "eps"),
    "a vocabulary larger than any memory": (lambda f: resize(f, vocab_size=10**15, embedding_size=10**15), "wants"),
    "layers without end": (lambda f: resize(f, num_hidden_layers=10**12, n_layers=10**12), "layers"),
    "a file without tensors": (hollow, "tensors"),
    "another mask": (lambda f: config(f, mask_token_id=5), "mask"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_folder_is_refused_by_name_with_exit_code_3(
    folder: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, said = FAULTS[fault]
    spoil(folder)
    assert main(["sample", "--ckpt", str(folder), "--max_new_tokens", "4"]) == 3
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


def test_weights_that_do_not_fit_into_memory_are_not_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffulex_edge import machine

    monkeypatch.setattr(machine, "MEMORY", folder / "meminfo")
    (folder / "meminfo").write_text("MemAvailable: 9 kB\n")
    with pytest.raises(ResourceError, match=str(folder)):
        diffulex_edge.load(folder)


def test_code_beside_the_weights_is_never_run(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for name in ("modeling_llada", "modeling_dream", "modeling_sdar", "modeling", "configuration", "tokenization"):
        (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    diffulex_edge.load(folder)
    assert not marker.exists()


def test_a_tied_head_may_be_stored_as_well_but_not_differ(tmp_path: Path) -> None:
    family = toys.FAMILIES["fast_dllm_v2"]
    folder = toys.write_folder(tmp_path, family, toys.hub_model(family))
    values = load_file(folder / "model.safetensors")
    values["lm_head.weight"] = values["model.embed_tokens.weight"].clone()
    save_file(values, folder / "model.safetensors")
    diffulex_edge.load(folder)
    values["lm_head.weight"][7] += 1
    save_file(values, folder / "model.safetensors")
    with pytest.raises(ArtefactError, match="tied"):
        diffulex_edge.load(folder)


def test_generation_config_adds_ends(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 298], "temperature": 0.6}')
    denoiser, _ = diffulex_edge.load(folder)
    assert denoiser.spec.stop_ids == (298, 5)


def test_a_mask_id_beyond_a_small_vocabulary_is_its_last_id() -> None:
    from diffulex_edge.model.families import FAMILIES, build

    for name in ("llada", "Dream", "sdar", "Fast_dLLM_Qwen"):
        assert FAMILIES[name]
        denoiser = build(name, config_class(name)(vocab_size=64))
        assert denoiser.spec.mask_id == 63
        assert all(i < 64 for i in denoiser.spec.stop_ids)


def test_a_large_tensor_is_read_in_pieces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_published(folder)
    monkeypatch.setattr("diffulex_edge.model.folder.PIECE", 100)  # numbers: two rows of the matrices
    pieces = load_published(folder)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), pieces.parameters(), strict=True))


def test_stored_rotary_frequencies_are_no_weights_and_most_numbers_say_the_type(folder: Path) -> None:
    tensors(folder, lambda v: v.update({"a.rotary_emb.inv_freq": torch.ones(6, dtype=torch.bfloat16)}))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["a.rotary_emb.inv_freq"] = SHARD
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    denoiser = load_published(folder)
    assert {p.dtype for p in denoiser.parameters()} == {torch.float32}


def test_newer_files_write_theta_among_the_rope_parameters(folder: Path) -> None:
    drop(folder, "rope_theta")
    config(folder, rope_parameters={"rope_type": "default", "rope_theta": 12345.0})
    denoiser = load_published(folder)
    assert denoiser.facts.rope_theta == 12345.0


@pytest.mark.parametrize(("name", "mask"), [("llada", 126336), ("Dream", 151666), ("sdar", 151669)])
def test_a_config_without_a_mask_has_the_one_of_its_family(name: str, mask: int) -> None:
    assert config_class(name)().mask_token_id == mask
    assert config_class("Fast_dLLM_Qwen")().mask_token_id == 151665


def test_llada_may_round_its_embedding_up_share_keys_and_have_biases() -> None:
    config = LLaDAEdgeConfig(vocab_size=90, embedding_size=96, n_heads=4, n_kv_heads=2, include_qkv_bias=True)
    denoiser = LLaDAEdge(config)
    assert denoiser(torch.zeros(1, 3, dtype=torch.long))[0].shape == (1, 3, 96)
    assert denoiser.spec.vocab_size == 96
    assert denoiser.spec.mask_id == 95
    names = dict(denoiser.named_parameters())
    assert names["layers.0.qkv.weight"].shape == (256 + 2 * 128, 256)
    assert names["layers.0.qkv.bias"].shape == (256 + 2 * 128,)
