"""Text to ids and back. Text never produces a control id; the ids of normalised text give it back exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.text.json_tokenizer import load_json_tokenizer
from diffulex_edge.text.sentencepiece_tokenizer import load_sentencepiece, train_tokenizer

__all__ = ["Tokenizer", "load_tokenizer", "tokenizer_file", "train_tokenizer"]


class Tokenizer(Protocol):
    """Text <-> ids."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def mask_id(self) -> int: ...

    @property
    def eos_id(self) -> int: ...

    @property
    def pad_id(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary: equal fingerprints mean the same id for the same piece."""
        ...

    def encode(self, text: str) -> list[int]:
        """Normalises, then tokenises. Never yields a control id, whatever the text says."""
        ...

    def split_controls(self, text: str) -> list[str | int]:
        """Cuts text that no user wrote, a chat template's, at what spells a control token, which becomes its id."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Control ids vanish; bytes that are not UTF-8 become U+FFFD."""
        ...

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """One printable string an id, for display."""
        ...


LOADERS: dict[str, Callable[[Path], Tokenizer]] = {".model": load_sentencepiece, ".json": load_json_tokenizer}


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Loads a SentencePiece `*.model`, a Hugging Face `tokenizer.json`, or the one of these that a folder holds.

    Raises ArtefactError, naming the file, where it is missing, damaged, or lacks what a diffusion model needs (a
    mask, an end of text).
    """
    file = tokenizer_file(path)
    return LOADERS[file.suffix](file)


def tokenizer_file(path: Path | str) -> Path:
    """The file itself, or the tokenizer.json or else the only *.model of a folder."""
    path = Path(path)
    if path.is_dir():
        found = [path / "tokenizer.json"] if (path / "tokenizer.json").exists() else sorted(path.glob("*.model"))
        if len(found) != 1:
            told = ", ".join(file.name for file in found) or "none"
            raise ArtefactError(f"{path}: needs a tokenizer.json or exactly one *.model, has {told}")
        return found[0]
    if not path.exists():
        raise ArtefactError(f"{path}: no such file")
    if path.suffix not in LOADERS:
        raise UsageError(f"{path}: a tokenizer's name ends in {' or '.join(LOADERS)}")
    return path


def tokenizer_files(path: Path | str) -> list[Path]:
    """All that belongs to it: the file, and beside a tokenizer.json what names its mask, end and pad."""
    file = tokenizer_file(path)
    names = file.with_name("tokenizer_config.json")
    return [file, names] if file.suffix == ".json" and names.exists() else [file]
