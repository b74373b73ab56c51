"""The parity gate: figures against independent ones, and nothing written where too much is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import diffulex_edge
from diffulex_edge.bench import bounds
from diffulex_edge.bench.parity import ParityConfig, budget_of, gate, parity
from diffulex_edge.cli.main import main
from diffulex_edge.cli.quantize import Names
from diffulex_edge.errors import UsageError
from diffulex_edge.quant import SCHEMES, quantize
from diffulex_edge.quant.embedding import QuantizedEmbedding
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.tests.conftest import TinyRun
from diffulex_edge.tests.test_quant_schemes import IDS, _eco
from diffulex_edge.tests.tree import ROOT
from diffulex_edge.text.corpus import Document
from diffulex_edge.tuning.calibrate import calibrate

pytest.importorskip("torchao")
TEXTS = ("राम घर जाता है। सीता पानी पीती है।", "वह आम खाता है।")
DOCUMENTS = [Document(text, "t", "devanagari") for text in TEXTS]
CONFIG = ParityConfig(parity_window=16)


def test_the_figures_are_those_of_each_model_alone(tiny_run: TinyRun) -> None:
    denoiser, words = diffulex_edge.load(tiny_run.run)
    made: Any = quantize(denoiser, SCHEMES["weight_only_int4"])
    with torch.no_grad():
        made.ends.head.bias += torch.randn(made.ends.head.bias.shape, generator=torch.Generator().manual_seed(0))
    found = parity(denoiser, made, words, DOCUMENTS, CONFIG)
    parts = bounds.windows([words.encode(text) for text in TEXTS], 16)
    for key, model in (("bits_per_char", denoiser), ("bits_per_char_quantized", made)):
        nats = bounds.nelbo(model, parts, n_samples=2, seed=0).nats.mean(1).sum()
        assert found[key] == pytest.approx(nats / np.log(2) / sum(map(len, TEXTS)))
    assert found["loss"] == pytest.approx(found["bits_per_char_quantized"] / found["bits_per_char"] - 1)
    assert found["token_agreement"] < 1 and found["guess_agreement"] < 1


def test_a_model_beside_itself_loses_nothing(tiny_run: TinyRun) -> None:
    denoiser, words = diffulex_edge.load(tiny_run.run)
    found = parity(denoiser, denoiser, words, DOCUMENTS, CONFIG)
    assert (found["loss"], found["token_agreement"], found["guess_agreement"]) == (0.0, 1.0, 1.0)


def test_the_gate_takes_what_is_within_the_budget_and_no_more() -> None:
    found = {"bits_per_char": 2.0, "bits_per_char_quantized": 2.02, "loss": 0.01}
    gate(found, 0.01)
    for loss, after in ((0.0101, 2.0202), (float("nan"), float("nan"))):
        with pytest.raises(UsageError, match=r"beyond the budget of 1.0%"):
            gate(found | {"loss": loss, "bits_per_char_quantized": after}, 0.01)
    assert [budget_of(SCHEMES[name]) for name in ("dynamic_int8", "dynamic_int4", "bf16")] == [0.01, 0.05, 0.01]


def test_calibration_decodes_and_walks_and_sees_more_by_both() -> None:
    model, plan = _eco(), Plan(max_new_tokens=8, block_size=8, steps=2)
    both = calibrate(model, [IDS[0].tolist()], plan, [IDS[1].tolist()])
    alone = calibrate(model, [], plan, [IDS[1].tolist()])
    wider = [both.inputs[name].range().scale - alone.inputs[name].range().scale for name in alone.inputs]
    assert min(wider) >= -1e-9 and max(wider) > 0
    with pytest.raises(UsageError, match="a prompt or a text"):
        calibrate(model, [], plan)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "held_out.jsonl"
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TEXTS))
    return path


def _quantize(run: TinyRun, output: Path, *more: str) -> int:
    return main(["quantize", str(output), "--ckpt", str(run.run), "--threads", "1", *more])


def test_the_verb_writes_a_folder_that_every_verb_opens(tiny_run: TinyRun, tmp_path: Path, documents: Path) -> None:
    out, told = tmp_path / "q", tmp_path / "told.json"
    assert _quantize(tiny_run, out, "--data", str(documents), "--json", str(told)) == 0
    result = json.loads(told.read_text())
    assert result["scheme"] == "dynamic_int8" and abs(result["loss"]) < 0.01
    assert result["bytes"] < (out / "model.safetensors").stat().st_size < 1.5 * result["bytes"]
    assert result["bytes"] == result["of_fp32"] * result["fp32_bytes"] < 0.5 * result["fp32_bytes"]
    assert isinstance(diffulex_edge.load(out)[0].ends.tokens, QuantizedEmbedding)  # type: ignore[attr-defined]
    assert main(["sample", "--ckpt", str(out), "--prompt", "राम", "--max_new_tokens", "8", "--threads", "1"]) == 0


def test_nothing_is_written_beyond_the_budget_unless_forced(
    tiny_run: TinyRun, tmp_path: Path, documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, judged = tmp_path / "q", ("--data", str(documents))
    assert _quantize(tiny_run, out, *judged, "--budget", "-0.5") == 2
    assert "beyond the budget of -50.0%" in capsys.readouterr().err
    assert _quantize(tiny_run, out) == 2
    assert "--data names documents" in capsys.readouterr().err
    assert not out.exists()
    assert _quantize(tiny_run, out, *judged, "--budget", "-0.5", "--force") == 0
    assert _quantize(tiny_run, tmp_path / "unjudged", "--force", "--scheme", "fp16") == 0
    assert (out / "manifest.json").exists() and (tmp_path / "unjudged/manifest.json").exists()


def test_the_verb_calibrates_on_its_own_text(tiny_run: TinyRun, tmp_path: Path, documents: Path) -> None:
    assert _quantize(tiny_run, tmp_path / "q", "--scheme", "static_int8", "--data", str(documents), "--force") == 0
    assert hasattr(diffulex_edge.load(tmp_path / "q")[0].ends.head, "before")  # type: ignore[attr-defined]


def test_the_verb_knows_every_scheme() -> None:
    assert set(get_args(Names)) == set(SCHEMES)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "budget"), [("dynamic_int8", 0.01), ("dynamic_int4", 0.05)])
def test_the_model_that_ships_keeps_its_budget(name: str, budget: float) -> None:
    """On the README's own Hindi, which it was not trained on."""
    page = (ROOT / "README.md").read_text(encoding="utf-8").split("## हिन्दी में")[1].split("##")[0]
    denoiser, words = diffulex_edge.load()
    found = parity(
        denoiser, quantize(denoiser, SCHEMES[name]), words, [Document(page, "t", "devanagari")], ParityConfig()
    )
    assert found["loss"] < budget
    assert found["guess_agreement"] > 0.7
