"""Seed 003's quick starts run as printed, from the prompt and the example inputs that it leaves to its reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

QUICK_START = """
from diffulex_edge.model import FastdLLMV2Edge, FastdLLMV2EdgeConfig
from diffulex_edge.runtime import InferenceEngine, GenerationConfig

# Create model
config = FastdLLMV2EdgeConfig(
    vocab_size=32000,
    hidden_size=512,
    num_hidden_layers=4,
)
model = FastdLLMV2Edge(config)

# Run inference with PyTorch engine
engine = InferenceEngine.from_model(model)
config = GenerationConfig(max_new_tokens=100, temperature=0.8)
tokens = engine.generate(prompt_tokens, config)
"""
EXPORT = """
# Export to ExecuTorch
from diffulex_edge.export import export_model
result = export_model(
    model,
    example_inputs,
    output_path="model.pte",
    backend="xnnpack",
    quantization="dynamic_int8",
)
"""
DIFFUSION = """
from diffulex_edge.runtime.diffusion import DiffusionEngine, DiffusionGenerationConfig

# Create diffusion engine
engine = DiffusionEngine(model=model)

# Generate with diffusion sampling
config = DiffusionGenerationConfig(
    max_new_tokens=50,
    num_iterations=10,
    temperature=0.8,
)
result = engine.generate([1, 2, 3], config)
"""


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    """What the usage example leaves behind; the second example goes on from there."""
    names: dict[str, Any] = {"prompt_tokens": [1, 2, 3]}
    exec(compile(QUICK_START, "seed 003", "exec"), names)
    return names


def test_the_usage_of_the_seed_runs(said: dict[str, Any]) -> None:
    tokens, ends = said["tokens"], said["model"].spec.stop_ids
    assert len(tokens) == 100 or tokens[-1] in ends
    assert all(isinstance(token, int) and 0 <= token < 32000 for token in tokens)
    assert said["model"].spec.mask_id not in tokens


def test_the_diffusion_generation_of_the_seed_runs(said: dict[str, Any]) -> None:
    names = dict(said)
    exec(compile(DIFFUSION, "seed 003", "exec"), names)
    result, ends = names["result"], names["model"].spec.stop_ids
    assert result[:3] == [1, 2, 3]
    assert len(result) == 53 or result[-1] in ends
    assert names["model"].spec.mask_id not in result


@pytest.mark.export
def test_the_export_of_the_seed_runs(said: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = dict(said, example_inputs=(torch.zeros(1, 32, dtype=torch.long),))
    exec(compile(EXPORT, "seed 003", "exec"), names)
    engine = names["InferenceEngine"].from_pte("model.pte")
    tokens = engine.generate([1, 2, 3], names["GenerationConfig"](max_new_tokens=32, temperature=0.0))
    assert names["result"].path.stat().st_size == names["result"].size_bytes
    assert 1 <= len(tokens) <= 32 and names["model"].spec.mask_id not in tokens
