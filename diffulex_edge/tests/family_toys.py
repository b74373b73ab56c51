"""Folders of the open families at toy size, written with the tensor names and the config.json of their makers.

The weights are those of the transformers library's own classes, biases and norms random too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from diffulex_edge.bench.shapes import write_byte_tokenizer

VOCAB, MASK, EOS = 300, 299, 298
SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "vocab_size": VOCAB,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
}
QWEN: dict[str, Any] = {
    **SIZES,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "eos_token_id": EOS,
}
LLADA: dict[str, Any] = {
    "d_model": 48,
    "n_layers": 3,
    "n_heads": 4,
    "n_kv_heads": 4,
    "mlp_hidden_size": 80,
    "vocab_size": VOCAB,
    "embedding_size": VOCAB,
    "max_sequence_length": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "weight_tying": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "scale_logits": False,
    "eos_token_id": EOS,
}


@dataclass(frozen=True)
class Family:
    config: dict[str, Any]  # config.json of the family
    hub: Callable[[], tuple[Any, Any]]  # the transformers class and its config
    block_length: int | None
    shift: Callable[[Tensor], Tensor]  # from the class's logits (B, L, V) to those that speak about each token
    rename: Callable[[str], str] = staticmethod(lambda name: name)


def _llama() -> tuple[Any, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM, LlamaConfig(**{**SIZES, "rms_norm_eps": 1e-5, "rope_theta": 5e5}, num_key_value_heads=4)


def qwen2(vocab_size: int = VOCAB, tied: bool = False) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        return Qwen2ForCausalLM, Qwen2Config(**{**QWEN, "vocab_size": vocab_size}, tie_word_embeddings=tied)

    return make


def _qwen3() -> tuple[Any, Any]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM, Qwen3Config(**QWEN, head_dim=16, tie_word_embeddings=False)


def _llada_name(name: str) -> str:
    ours = {
        "model.embed_tokens": "model.transformer.wte",
        "model.norm": "model.transformer.ln_f",
        "lm_head": "model.transformer.ff_out",
        "model.layers": "model.transformer.blocks",
        "self_attn.o_proj": "attn_out",
        "self_attn.": "",
        "mlp.gate_proj": "ff_proj",
        "mlp.up_proj": "up_proj",
        "mlp.down_proj": "ff_out",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ff_norm",
    }
    for theirs, new in ours.items():
        name = name.replace(theirs, new)
    return name


def _behind(logits: Tensor) -> Tensor:
    return torch.cat((logits[:, :1], logits[:, :-1]), 1)


def _behind_in_blocks(logits: Tensor) -> Tensor:
    return torch.cat([_behind(piece) for piece in logits.split(8, 1)], 1)


FAMILIES = {
    "llada": Family({"model_type": "llada", **LLADA, "mask_token_id": MASK}, _llama, None, lambda x: x, _llada_name),
    "dream": Family({"model_type": "Dream", **QWEN, "mask_token_id": MASK}, qwen2(), None, _behind),
    "sdar": Family(
        {"model_type": "sdar", **QWEN, "head_dim": 16, "attention_bias": False, "block_size": 4, "mask_token_id": MASK},
        _qwen3,
        4,
        lambda x: x,
    ),
    "fast_dllm_v2": Family(
        {"model_type": "Fast_dLLM_Qwen", **QWEN, "tie_word_embeddings": True, "bd_size": 8, "mask_token_id": MASK},
        qwen2(tied=True),
        8,
        _behind_in_blocks,
    ),
}


def hub_model(family: Family, seed: int = 0) -> Any:
    """The transformers class with random weights everywhere, in fp32."""
    kind, config = family.hub()
    config._attn_implementation = "eager"
    model = kind(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        centre = 1.0 if "norm" in name else 0.0
        parameter.data = centre + 0.15 * torch.randn(parameter.shape, generator=generator)
    model.tie_weights()
    return model


def tensors(family: Family, model: Any) -> dict[str, Tensor]:
    tied = bool(model.config.tie_word_embeddings)
    return {
        family.rename(name): value.detach().clone()
        for name, value in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }


def write_folder(
    folder: Path, family: Family, model: Any, *, shards: int = 1, dtype: torch.dtype | None = None
) -> Path:
    """A folder as the hub has it: config, tokenizer, and the weights in one file or several with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(family.config))
    write_byte_tokenizer(folder, EOS, MASK)
    values = {name: value.to(dtype or value.dtype).contiguous() for name, value in tensors(family, model).items()}
    if shards == 1:
        save_file(values, folder / "model.safetensors")
        return folder
    names = sorted(values)
    index = {}
    for k in range(shards):
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        part = names[k::shards]
        save_file({name: values[name] for name in part}, folder / file)
        index.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def mask_of(block_length: int | None, length: int) -> Tensor:
    """The family's 4-D additive mask (1, 1, L, L)."""
    block = torch.arange(length) // (block_length or length)
    sees = block[:, None] >= block
    return torch.zeros(1, 1, length, length).masked_fill(~sees, torch.finfo(torch.float32).min)
