"""Packs of small models: one against memory, one with a static cache, one on a canvas, and one of other words.

The first three speak the shipped tokenizer, the last a tokenizer.json, in bytes as those of the open families.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from diffulex_edge.api import source_of
from diffulex_edge.export import ExportConfig
from diffulex_edge.export.pack import PackConfig, make_pack
from diffulex_edge.model.transformer import TransformerDenoiser
from diffulex_edge.tests import once, toys

WORDS = {"vocab_size": 8192, "mask_id": 3}
BYTES = {"vocab_size": 384, "mask_id": 1}
MODELS: dict[str, Any] = {
    "memory": lambda: toys.eco(n_layers=2, **WORDS),
    "kv": lambda: toys.backup(**WORDS, block_length=8),
    "canvas": lambda: toys.backup(**WORDS),
    "json": lambda: toys.backup(**BYTES, block_length=8),
}
CONTEXTS = {"json": "kv"}  # the others have the name of theirs
TARGETS = {"memory": "android", "kv": "ios", "canvas": "desktop", "json": "desktop"}
SHAPE = ExportConfig(block_size=8, max_length=96)
SHAPES = {"canvas": replace(SHAPE, buckets=(40,)), "kv": replace(SHAPE, prefill=16)}  # the others have this one


@cache
def pack(name: str) -> Path:
    """The folder, made once."""
    folder = once.FOLDER / f"pack-{name}"

    def make() -> None:
        model = MODELS[name]()
        assert isinstance(model, TransformerDenoiser) == (name != "memory")
        source = _bytes() if name == "json" else source_of("aria-hindi-tiny")
        make_pack(model, source, folder, PackConfig(target=TARGETS[name], steps=4), SHAPES.get(name, SHAPE))

    once.made(folder.name, make)
    return folder


def _bytes() -> Path:
    """A folder with a tokenizer as Qwen's is made: NFC, words by a regular expression, pairs of bytes."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()  # type: ignore[assignment]
    words = Regex(r"\p{L}\p{M}*(?:\p{L}\p{M}*)*|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    made.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=BYTES["vocab_size"],
        special_tokens=["<|endoftext|>", "<|mask|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["मैं कल बाज़ार गया था। main kal bazaar gaya tha."] * 8, trainer)
    folder = once.FOLDER / "bytes"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    return folder
