"""The parts of SEDAC in vLLM by themselves: packed blocks, preparation, and the benchmark, in vLLM's environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffulex_edge.integrations.vllm import prepare as prepare_module
from diffulex_edge.integrations.vllm.prepare import Preparation, prepare
from diffulex_edge.integrations.vllm.probes import read_probes
from diffulex_edge.integrations.vllm.soft_mlp import SoftMLP
from diffulex_edge.tests.vllm_toys import make_model

pytestmark = pytest.mark.vllm


def plain(x: Tensor, gate_up: Tensor, down: Tensor, kept: Tensor) -> Tensor:
    """Each token with its own first channels, in float64."""
    gate, up = (x.double() @ gate_up.double().T).chunk(2, -1)
    alive = torch.arange(down.shape[1]) < kept[:, None]
    return torch.nn.functional.silu(gate) * up * alive @ down.double().T


@pytest.mark.parametrize(
    "blocks",
    [[8], [0], [3], [8] * 20, [5] * 20, [0] * 20, [0, 8, 3, 1, 5], [1, 2], [4, 0] * 12, [*range(9), *range(9)]],
    ids=str,
)
def test_blocks_are_the_first_channels(blocks: list[int]) -> None:
    torch.manual_seed(0)
    gate_up, down, x = torch.randn(512, 64), torch.randn(64, 256), torch.randn(len(blocks), 64)
    mlp = SoftMLP("a", 8)
    mlp.pack(gate_up, down)
    given = x.clone()
    found = mlp.run(x, torch.tensor(blocks, dtype=torch.int32))
    wanted = plain(x, gate_up, down, torch.tensor(blocks) * 32)
    assert (found - wanted).abs().max() <= 1e-5 * max(float(wanted.abs().max()), 1)
    assert torch.equal(x, given)
    assert (mlp.ran, mlp.offered) == (sum(blocks), 8 * len(blocks))


def test_preparing_sorts_and_changes_nothing(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = make_model(tmp_path / "model", hidden_size=64)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"document {n} reads what it is told, and writes {n * n} words" for n in range(40)))
    report = prepare(Preparation(model=model, output=tmp_path / "sorted", texts=texts, layers=(0, 2)))
    before, after = (AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32) for p in (model, tmp_path / "sorted"))
    ids = torch.arange(1, 60)[None]
    assert (before(ids).logits - after(ids).logits).abs().max() <= 1e-5
    old, new = (m.model.layers[1].mlp.down_proj.weight for m in (before, after))
    assert not torch.equal(old, new)
    weights, _ = prepare_module.look(
        Preparation(model=tmp_path / "sorted", output=tmp_path, texts=texts, layers=(0, 2)),
        texts.read_text().splitlines(),
    )
    assert all((w.diff() <= 1e-9 * w[:-1]).all() for w in weights.values()), "the sorted model's channels are in order"
    assert set(read_probes(tmp_path / "sorted", "sedac/probes.safetensors", (0, 2), 64)) == {0, 2}
    assert set(report["layers"]) == {0, 2}
    assert all(0 <= row["auroc_probe"] <= 1 for row in report["layers"].values())


def test_preparing_the_wrong_thing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, texts = make_model(tmp_path / "model"), tmp_path / "texts.txt"
    texts.write_text("one\ntwo\n")
    flags = ["--model", str(model), "--output", str(tmp_path / "new"), "--texts"]
    assert prepare_module.main([*flags, str(texts), "--layers", "0"]) == 2
    assert "need at least 10" in capsys.readouterr().err
    texts.write_text("some words\n" * 10)
    assert prepare_module.main([*flags, str(texts), "--layers", "3"]) == 2
    assert "before the last of 4" in capsys.readouterr().err
    assert prepare_module.main([*flags, str(tmp_path / "none"), "--layers", "0"]) == 3
    assert not (tmp_path / "new").exists()


def test_the_benchmark_compares_in_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from diffulex_edge.integrations.vllm.benchmark import main

    sizes = ["--hidden-size", "128", "--intermediate-size", "512", "--n-layers", "4", "--tokens", "4", "--rounds", "2"]
    assert main([*sizes, "--json", str(tmp_path / "row.json")]) == 0
    rows = json.loads((tmp_path / "row.json").read_text())["rows"]
    assert [rows[name]["channels_skipped"] for name in ("stock", "keep", "C=0.7", "C=1")] == pytest.approx(
        [0, 0, 3 / 4 * 5 / 8, 3 / 4 * 7 / 8], abs=1e-4
    )
    assert all(row["tokens_per_cpu_second"] > 0 for row in rows.values())
    assert main([*sizes, "--rounds", "0"]) == 2
