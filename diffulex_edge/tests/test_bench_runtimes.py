"""`bench --runtimes`: engines beside each other on one model, and the file that llama.cpp reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from diffulex_edge.bench.llama_cpp import LlamaCpp, write_gguf
from diffulex_edge.bench.report import runtimes_table
from diffulex_edge.bench.runtimes import PublishedReveal, RuntimeBenchConfig, benchmark_runtimes
from diffulex_edge.errors import UsageError
from diffulex_edge.model.llada_edge import LLaDAEdge, LLaDAEdgeConfig
from diffulex_edge.quant import find_scheme
from diffulex_edge.quant.quantizer import quantize
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.plan import plan_for
from diffulex_edge.tests import toys


def llada() -> LLaDAEdge:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "d_model": 64,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "mlp_hidden_size": 96,
        "vocab_size": 320,
    }
    return LLaDAEdge(LLaDAEdgeConfig(**sizes, mask_token_id=310, eos_token_id=311)).eval()


@pytest.mark.parametrize("make", [toys.eco, llada])
def test_each_engine_has_its_times_and_its_error(make) -> None:  # type: ignore[no-untyped-def]
    engines = ("eager", "eager-bf16", "eager-dynamic_int8")
    config = RuntimeBenchConfig(runtime_lengths=(8, 16), runtime_engines=engines, runtime_rounds=2, runtime_steps=2)
    found = benchmark_runtimes(make(), config)
    assert [part["length"] for part in found["lengths"]] == [8, 16]
    for part in found["lengths"]:
        rows = {row["engine"]: row for row in part["engines"]}
        assert tuple(rows) == engines and not part["missing"] and not part["llama_cpp"]
        assert rows["eager"]["relative_error"] == 0 and rows["eager"]["times_baseline"]["ratio"] == 1
        assert 1e-4 < rows["eager-bf16"]["relative_error"] < 0.05
        assert 1e-4 < rows["eager-dynamic_int8"]["relative_error"] < 0.2
        assert all(row["step_cpu_ms"] > 0 and row["tokens_per_s"] > 0 for row in rows.values())
        assert set(part["floor_ms"]) == {"fp32", "bf16", "int8"} and min(part["floor_ms"].values()) > 0
    assert found["lengths"][1]["gflop"] > found["lengths"][0]["gflop"] > 0
    assert runtimes_table(found).row_count == 2 * len(engines)


def test_the_reveal_that_is_published_shows_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llada()
    plan = plan_for(model.spec, context="canvas", block_size=8, steps=3, stop_ids=())
    published = PublishedReveal(model, (model.spec.mask_id,))
    reveal = Mock(side_effect=published.reveal)
    monkeypatch.setattr(published, "reveal", reveal)
    hidden = [[5, 6, 7] + [model.spec.mask_id] * 21]
    ours, theirs = (finish(decode(side, hidden, plan)) for side in (model, published))
    assert ours == theirs and model.spec.mask_id not in ours.texts[0]
    assert reveal.call_count == ours.forwards > 0


@pytest.mark.export
def test_machine_code_made_on_the_spot_is_an_engine() -> None:
    engines = ("eager", "aot", "aot-bf16")
    config = RuntimeBenchConfig(runtime_lengths=(8,), runtime_engines=engines, runtime_rounds=1, runtime_steps=2)
    (part,) = benchmark_runtimes(toys.eco(n_layers=1, local_attn_layers=()), config)["lengths"]
    errors = {row["engine"]: row["relative_error"] for row in part["engines"]}
    assert not part["missing"]
    assert errors["aot"] < 1e-5 < errors["aot-bf16"] < 0.05


def test_engines_that_there_are_not_are_named() -> None:
    with pytest.raises(UsageError, match="'onnx'"):
        RuntimeBenchConfig(runtime_engines=("eager", "onnx"))
    with pytest.raises(UsageError, match="at least 1 each"):
        RuntimeBenchConfig(runtime_rounds=0)
    with pytest.raises(UsageError, match="a model in floating point"):
        benchmark_runtimes(quantize(toys.eco(), find_scheme("dynamic_int8")))


def test_the_file_for_llama_cpp_holds_the_weights(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    model = llada()
    reader = gguf.GGUFReader(write_gguf(model, tmp_path / "x.gguf", "F32"))
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    parameters = dict(model.named_parameters())
    assert len(tensors) == 3 + 9 * 2
    assert np.array_equal(tensors["token_embd.weight"], parameters["ends.tokens.weight"].detach().numpy())
    keys = parameters["layers.1.qkv.weight"].detach()[64:96].numpy()  # 2 heads of 16 rows
    assert np.array_equal(tensors["blk.1.attn_k.weight"][[0, 1, 16, 17]], keys[[0, 8, 16, 24]]), (
        "halves become neighbours"
    )
    assert sorted(map(tuple, tensors["blk.1.attn_k.weight"])) == sorted(map(tuple, keys))
    field = reader.get_field("tokenizer.ggml.mask_token_id")
    assert field.contents() == 310 and len(reader.get_field("tokenizer.ggml.tokens").data) == 320
    half = gguf.GGUFReader(write_gguf(model, tmp_path / "q.gguf", "Q8_0"))
    assert sum(t.n_bytes for t in half.tensors) < 0.3 * sum(t.n_bytes for t in reader.tensors)
    with pytest.raises(UsageError, match="'Q9'"):
        write_gguf(model, tmp_path / "y.gguf", "Q9")
    with pytest.raises(UsageError, match="does not write 'Q4_K'"):
        write_gguf(model, tmp_path / "z.gguf", "Q4_K")


def test_llama_cpp_wants_its_program_and_a_llada(tmp_path: Path) -> None:
    assert LlamaCpp.of(toys.eco(), None, ("F32",), tmp_path) is None
    with pytest.raises(UsageError, match="no such file"):
        LlamaCpp.of(llada(), tmp_path / "no", ("F32",), tmp_path)
    (tmp_path / "there").touch()
    with pytest.raises(UsageError, match="not EcoHybrid"):
        LlamaCpp.of(toys.eco(), tmp_path / "there", ("F32",), tmp_path)
