"""From a checkpoint of training to a folder for use: averaged weights in bf16, config, tokenizer, card, manifest.

python -m diffulex_edge.train.publish RUN diffulex_edge/assets/aria-hindi-tiny --card CARD.md
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from diffulex_edge.errors import ArtefactError
from diffulex_edge.files import read_json
from diffulex_edge.model import checkpoint


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    source: Annotated[Path, tyro.conf.Positional]  # run or checkpoint
    target: Annotated[Path, tyro.conf.Positional]  # folder that is written, or replaced
    card: Path  # README.md of the model


def publish(config: PublishConfig) -> Path:
    """Writes the folder; what it held before is replaced only when the new one is whole."""
    folder = checkpoint.find(config.source)
    weights = checkpoint.read_tensors(folder / "ema.safetensors")
    tokenizers = [folder / name for name in ("tokenizer.model", "tokenizer.json") if (folder / name).exists()]
    if not tokenizers:
        raise ArtefactError(f"{folder}: no tokenizer in it")
    checkpoint.write(
        config.target,
        {
            "model.safetensors": checkpoint.tensors({name: w.to(torch.bfloat16) for name, w in weights.items()}),
            "config.json": checkpoint.document(read_json(folder / "config.json")),
            tokenizers[0].name: checkpoint.copy_of(tokenizers[0]),
            "README.md": checkpoint.copy_of(config.card),
        },
    )
    checkpoint.verify(config.target)
    return config.target


if __name__ == "__main__":
    print(publish(tyro.cli(PublishConfig)))
