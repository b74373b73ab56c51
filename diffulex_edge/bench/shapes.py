"""Models of the open families' shapes with random weights, in folders as they are published: what speed is measured on.

    python -m diffulex_edge.bench.shapes llada-230m FOLDER

How long a step takes hangs on the shapes, not on what the weights say; what a model writes with them is noise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HubTokenizer
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.families import FAMILIES, config_class
from diffulex_edge.model.published import Place, places

EOS, MASK = 256, 257  # ids of the byte tokenizer that lies beside the weights
SHARD = 1 << 29  # numbers a file


@dataclass(frozen=True)
class Shape:
    family: str  # model_type
    sizes: Mapping[str, Any]  # fields of its config


SHAPES = {
    "llada-42m": Shape(
        "llada",
        {
            "d_model": 512,
            "n_layers": 8,
            "n_heads": 8,
            "n_kv_heads": 4,
            "mlp_hidden_size": 1536,
            "vocab_size": 16384,
        },
    ),
    "llada-230m": Shape(
        "llada", {"d_model": 1024, "n_layers": 12, "n_heads": 16, "mlp_hidden_size": 3072, "vocab_size": 32000}
    ),
    "sdar-230m": Shape(
        "sdar",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 12,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "intermediate_size": 3072,
            "vocab_size": 32000,
            "block_size": 32,
        },
    ),
    "fast-dllm-v2-1.5b": Shape(
        "Fast_dLLM_Qwen",
        {
            "hidden_size": 1536,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "intermediate_size": 8960,
            "vocab_size": 151936,
        },
    ),
}


def write_shape(name: str, folder: Path, *, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Path:
    """A published folder of the shape: sharded safetensors, config.json and a tokenizer of bytes."""
    if name not in SHAPES:
        raise UsageError(f"shape {name!r} is not one of {', '.join(SHAPES)}")
    shape = SHAPES[name]
    module = import_module(FAMILIES[shape.family][0])
    config = config_class(shape.family)(**shape.sizes, mask_token_id=MASK, eos_token_id=EOS)
    with torch.device("meta"):
        parameters = dict(getattr(module, FAMILIES[shape.family][1])(config).named_parameters())
    folder.mkdir(parents=True, exist_ok=True)
    said = {key: value for key, value in asdict(config).items() if value is not None}
    (folder / "config.json").write_text(json.dumps({"model_type": shape.family, **said}, indent=1))
    write_byte_tokenizer(folder, EOS, MASK, config.vocab_size)
    wanted = places(module.sizes(config), module.PUBLISHED.names)
    generator, index, shard, files = torch.Generator().manual_seed(seed), {}, dict[str, Tensor](), 0
    for i, (tensor, place) in enumerate(wanted.items()):
        shard[tensor] = _random(place, parameters[place.parameter].shape[1:], generator).to(dtype)
        if sum(value.numel() for value in shard.values()) > SHARD or i + 1 == len(wanted):
            files += 1
            file = f"model-{files:05d}.safetensors"
            save_file(shard, folder / file)
            index.update(dict.fromkeys(shard, file))
            shard = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def _random(place: Place, rest: torch.Size, generator: torch.Generator) -> Tensor:
    """Matrices of deviation 0.02; norms of ones."""
    if not rest:
        return torch.ones(place.n)
    return torch.randn((place.n, *rest), generator=generator) * 0.02


def write_byte_tokenizer(folder: Path, eos: int, mask: int, size: int = 0) -> None:
    """A tokenizer.json of the 256 bytes, an end of text and a mask with the ids asked for, and `size` ids in all."""
    words = HubTokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    words.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    named = {eos: "<|endoftext|>", mask: "<|mask|>"}
    added = [named.get(i, f"<|spare_{i}|>") for i in range(256, max(*named, size - 1) + 1)]
    words.add_special_tokens([AddedToken(token, special=True) for token in added])
    words.save(str(folder / "tokenizer.json"))
    names = {"eos_token": named[eos], "pad_token": named[eos], "mask_token": named[mask]}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def main(words: Sequence[str]) -> int:
    """Writes the folder that the words ask for, and gives the exit code."""
    try:
        if len(words) != 2:
            raise UsageError(f"two words are needed, a shape ({', '.join(SHAPES)}) and a folder")
        print(write_shape(words[0], Path(words[1])))
    except UsageError as error:
        print("error:", error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
