"""Text in, training data out: train.bin, val.bin and meta.json, and a tokenizer where there is none yet."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from diffulex_edge.errors import Interrupted, UsageError
from diffulex_edge.files import alone_in, disk_errors, read_sealed_json, sha256_file
from diffulex_edge.text import packing
from diffulex_edge.text.corpus import Document
from diffulex_edge.text.normalize import normalize
from diffulex_edge.text.source import Source, find_source
from diffulex_edge.text.tokenizer import Tokenizer, load_tokenizer, tokenizer_file, train_tokenizer

LATIN_SHARE = 0.25  # of the characters the tokenizer learns from: at 7 % `phone` falls apart into `p h one`
LATIN_REPEATS = 4.0  # at most, so that a handful of Roman lines cannot fill the vocabulary


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    source: tuple[str, ...] = ("demo",)  # files, folders, demo (generated), hindi, hinglish, or ids of hub data sets
    data_dir: Path = Path("data/processed")  # where train.bin, val.bin and meta.json go
    tokenizer: Path = Path("data/tokenizer/aria_hindi.model")  # used if it is there, else trained and written there
    vocab_size: int = 8192  # of a tokenizer to train, at most: little text fills less
    tokenizer_chars: int = 50_000_000  # a tokenizer is trained on the first so many characters
    val_fraction: float = 0.01  # of the documents, chosen by a hash of their text; one at least, where there are two
    max_documents: int = 0  # stop after so many; 0: take all
    demo_documents: int = 4000  # how many documents the source `demo` makes
    seed: int = 0  # of the split and of the generated text
    overwrite: bool = False  # replace data that was made with another tokenizer
    chunk_tokens: int = 1 << 20  # tokens between two journal entries: what a kill can cost

    def __post_init__(self) -> None:
        if not self.source:
            raise UsageError("source: name at least one file, folder or data set")
        if not 0 <= self.val_fraction < 1:
            raise UsageError(f"val_fraction={self.val_fraction} must be at least 0 and below 1")
        if self.vocab_size < 512:
            raise UsageError(
                f"vocab_size={self.vocab_size} must be at least 512: 261 pieces are bytes and control symbols"
            )
        for name in ("tokenizer_chars", "demo_documents", "chunk_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed={self.seed} must be from 0 to 2^63 - 1")
        if self.max_documents < 0:
            raise UsageError(f"max_documents={self.max_documents} must not be negative; 0 takes all")


def prepare(config: PrepareConfig) -> Path:
    """Writes the training data and gives back its folder. Killed and run again, it ends with the same bytes.

    Raises UsageError for data that is empty or would replace data of another tokenizer, ArtefactError for a file that
    cannot be read, ResourceError on a full disk, Interrupted on Ctrl-C.
    """
    folder = Path(config.data_dir)
    try:
        with disk_errors(folder), alone_in(folder, "preparation"), _progress() as progress:
            tokenizer = _tokenizer(config, progress)
            _refuse_another_tokenizer(config, tokenizer)
            _pack(config, tokenizer, progress)
    except KeyboardInterrupt as error:
        raise Interrupted(f"stopped; the same command goes on with what is in {folder}") from error
    return folder


def _progress() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(file=sys.stderr)
    return Progress(*columns, console=console, disable=not console.is_terminal)


def documents(config: PrepareConfig) -> Iterator[Document]:
    """All documents of all sources, in order."""
    taken = 0
    for source in _sources(config):
        for document in source.documents():
            if config.max_documents and taken == config.max_documents:
                return
            taken += 1
            yield document


def _sources(config: PrepareConfig) -> list[Source]:
    return [find_source(name, n_demo=config.demo_documents, seed=config.seed) for name in config.source]


def rank(text: str, seed: int) -> int:
    """A hash of the text in 0 .. 2^53 - 1: equal texts always fall on the same side of a split."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, salt=seed.to_bytes(16, "little", signed=True)).digest()
    return int.from_bytes(digest, "little") >> 11


def is_held_out(text_rank: int, fraction: float) -> bool:
    return text_rank < fraction * 2**53


def _tokenizer(config: PrepareConfig, progress: Progress) -> Tokenizer:
    path = Path(config.tokenizer)
    if path.exists():
        return load_tokenizer(path)
    task = progress.add_task("reading for the tokenizer", total=None)
    sample: list[tuple[str, str]] = []
    held_out: list[tuple[str, str]] = []
    n_chars = 0
    for document in documents(config):
        text = normalize(document.text)
        progress.advance(task)
        if text.strip():
            held = is_held_out(rank(text, config.seed), config.val_fraction)
            (held_out if held else sample).append((text, document.script))
            n_chars += len(text)
        if n_chars >= config.tokenizer_chars:
            break
    sample = sample or held_out  # two or three documents may all be held out
    if not sample:
        raise UsageError(f"source {', '.join(config.source)}: no text to train a tokenizer on")
    progress.update(task, description=f"training the tokenizer on {n_chars:,} characters")
    tokenizer = train_tokenizer(mixture(sample), path, vocab_size=config.vocab_size)
    if tokenizer.vocab_size < config.vocab_size:
        print(
            f"{path}: {tokenizer.vocab_size:,} pieces, not {config.vocab_size:,}: the text has no more", file=sys.stderr
        )
    return tokenizer


def mixture(sample: Iterable[tuple[str, str]]) -> Iterator[str]:
    """From (text, script): every text; Roman and mixed ones again until they have LATIN_SHARE of the characters."""
    sample = list(sample)
    latin = sum(len(text) for text, script in sample if script in ("roman", "mixed"))
    other = sum(len(text) for text, script in sample) - latin
    wanted = LATIN_SHARE / (1 - LATIN_SHARE) * other
    repeats = min(max(wanted / latin, 1.0), LATIN_REPEATS) if latin else 1.0
    n_latin = 0
    for text, script in sample:
        again = 1
        if script in ("roman", "mixed"):  # error diffusion: no chance is involved
            again = math.floor((n_latin + 1) * repeats) - math.floor(n_latin * repeats)
            n_latin += 1
        yield from [text] * again


def _refuse_another_tokenizer(config: PrepareConfig, tokenizer: Tokenizer) -> None:
    meta = Path(config.data_dir) / "meta.json"
    if config.overwrite or not meta.exists():
        return
    theirs = read_sealed_json(meta).get("tokenizer", {}).get("fingerprint")
    if theirs != tokenizer.fingerprint:
        raise UsageError(
            f"{config.data_dir} holds data of another tokenizer than {config.tokenizer};"
            " choose another --data_dir, or --overwrite it"
        )


def _pack(config: PrepareConfig, tokenizer: Tokenizer, progress: Progress) -> None:
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 65535 else "<u4")
    data_dir = Path(config.data_dir)
    folder = data_dir / ".partial"
    facts = _facts(config, tokenizer)
    if not config.overwrite and packing.is_published(data_dir, facts):
        shutil.rmtree(folder, ignore_errors=True)  # of a preparation that was killed in its last moment
        return
    if packing.is_complete(folder, facts):
        packing.publish(folder, data_dir)
        return
    parts = packing.Parts(folder, dtype, facts)
    parts.open()
    task = progress.add_task("tokenising", total=None, completed=parts.n_seen)
    try:
        for index, document in enumerate(documents(config)):
            if index >= parts.n_seen:
                _add(parts, document, config, tokenizer)
                progress.update(task, completed=parts.n_seen)
        parts.commit()
    finally:
        parts.close()
    if not any(parts.documents.values()):
        raise UsageError(f"source {', '.join(config.source)}: holds no text")
    packing.finish(parts, data_dir, _about(config, tokenizer))


def _add(parts: packing.Parts, document: Document, config: PrepareConfig, tokenizer: Tokenizer) -> None:
    text = normalize(document.text)
    parts.n_seen += 1
    if not text.strip():
        return
    ids = [*tokenizer.encode(text), tokenizer.eos_id]
    place = rank(text, config.seed)
    split = "val" if is_held_out(place, config.val_fraction) else "train"
    parts.add(split, ids, packing.Packed(len(ids), len(text), document.script, document.source, place))
    if parts.n_waiting >= config.chunk_tokens:
        parts.commit()


def _facts(config: PrepareConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What decides every byte of the result."""
    return {
        "sources": [fact for source in _sources(config) for fact in source.facts()],
        "tokenizer": tokenizer.fingerprint,
        "val_fraction": config.val_fraction,
        "max_documents": config.max_documents,
        "seed": config.seed,
    }


def _about(config: PrepareConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "vocab_size": tokenizer.vocab_size,
        "tokenizer": {
            "path": os.path.relpath(config.tokenizer, config.data_dir),  # so that both can move together
            "sha256": sha256_file(tokenizer_file(config.tokenizer)),
            "fingerprint": tokenizer.fingerprint,
            "mask_id": tokenizer.mask_id,
            "eos_id": tokenizer.eos_id,
            "pad_id": tokenizer.pad_id,
        },
    }
