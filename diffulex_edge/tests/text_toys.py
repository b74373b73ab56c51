"""A small shelf of text with a tokenizer, and what the tests of `prepare` do with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from diffulex_edge.text.demo import demo_documents
from diffulex_edge.text.prepare import PrepareConfig
from diffulex_edge.text.tokenizer import train_tokenizer


def make_shelf(folder: Path) -> Path:
    """text.jsonl (90 documents, two empty, one twice), and a tokenizer."""
    texts = [document.text for document in demo_documents(87, seed=5)]
    texts = [*texts[:40], "", texts[3], *texts[40:], " \n\x00"]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    train_tokenizer(texts, folder / "t.model", vocab_size=600)
    return folder


def config(shelf: Path, folder: Path, **changes: object) -> PrepareConfig:
    base = PrepareConfig(
        source=(str(shelf / "text.jsonl"),),
        data_dir=folder,
        tokenizer=shelf / "t.model",
        val_fraction=0.2,
        chunk_tokens=6000,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
