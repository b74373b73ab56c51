"""Packs of small models with the shipped tokenizer: one against memory, one with a static cache, one on a canvas."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from diffulex_edge.api import source_of
from diffulex_edge.export import ExportConfig
from diffulex_edge.export.pack import PackConfig, make_pack
from diffulex_edge.model.transformer import TransformerDenoiser
from diffulex_edge.tests import once, toys

WORDS = {"vocab_size": 8192, "mask_id": 3}
MODELS: dict[str, Any] = {
    "memory": lambda: toys.eco(n_layers=2, **WORDS),
    "kv": lambda: toys.backup(**WORDS, block_length=8),
    "canvas": lambda: toys.backup(**WORDS),
}
TARGETS = {"memory": "android", "kv": "ios", "canvas": "desktop"}
SHAPE = ExportConfig(block_size=8, max_length=96)


@cache
def pack(context: str) -> Path:
    """The folder, made once."""
    folder = once.FOLDER / f"pack-{context}"

    def make() -> None:
        model = MODELS[context]()
        assert isinstance(model, TransformerDenoiser) == (context != "memory")
        make_pack(model, source_of("aria-hindi-tiny"), folder, PackConfig(target=TARGETS[context], steps=4), SHAPE)

    once.made(folder.name, make)
    return folder
