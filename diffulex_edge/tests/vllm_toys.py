"""Tiny checkpoints for vLLM, made on the spot: random weights, a tokenizer of this text, probes of a known mind."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from diffulex_edge.integrations.vllm.probes import Probe, write_probes

TEXT = "a model that runs in vLLM reads what it is told, word by word, and writes one more. " * 8
ARCHITECTURES = {"qwen2": "SedacQwen2ForCausalLM", "llama": "SedacLlamaForCausalLM"}


def make_tokenizer(folder: Path) -> None:
    """A byte-level BPE as Hugging Face writes it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=320, special_tokens=["</s>"], initial_alphabet=alphabet)
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "model_max_length": 4096}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))


def make_model(folder: Path, family: str = "qwen2", seed: int = 0, **sizes: int) -> Path:
    """A random Qwen2 or Llama: 4 layers, 64 wide, with 256 channels, unless `sizes` say otherwise."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    shape = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 1, "vocab_size": 320, "max_position_embeddings": 4096, **sizes}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **shape, tie_word_embeddings=False, eos_token_id=0, bos_token_id=None)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def make_probes(folder: Path, layers: Sequence[int], width: int = 64, scale: float = 0.0, bias: float = 0.0) -> None:
    """Random probes of this scale; scale 0 and a large bias say the same of every token: 1 at +40, 0 at -40."""
    draw = torch.Generator().manual_seed(7)
    probes = {i: Probe(torch.randn(width, generator=draw) * scale, torch.tensor(bias)) for i in layers}
    write_probes(folder / "sedac/probes.safetensors", probes, folder)


def section(layers: Sequence[int], *, exit_confidence: float = 0.2, weight: float = 0.5, **more: Any) -> dict[str, Any]:
    """Settings with these checkpoints."""
    checkpoint = {"target_exit_rate": 0.5, "initial_threshold": 0.8, "confidence_weight": weight}
    return {"checkpoints": [{"layer_idx": i, "exit_confidence": exit_confidence, **checkpoint} for i in layers], **more}


def open_llm(folder: Path, sedac: Mapping[str, Any] | None = None, **settings: Any) -> Any:
    """vLLM's LLM over a folder: stock, or with SEDAC where its section is given."""
    from vllm import LLM

    gc.collect()  # an engine that dies later would take what all engines of a process share with it
    family = json.loads((folder / "config.json").read_text())["model_type"]
    overrides = {} if sedac is None else {"architectures": [ARCHITECTURES[family]], "sedac": dict(sedac)}
    said = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 512,
        "kv_cache_memory_bytes": 64 << 20,
        **settings,
    }
    return LLM(str(folder), hf_overrides=overrides, enable_prefix_caching=False, seed=0, **said)
