"""Token files that grow by whole documents and survive a kill: parts, a journal of what is safe, and the renames.

Everything is made in DATA_DIR/.partial and moved out when it is complete, meta.json last. After a kill the same
command goes on after the last journal entry, and the result is the same to the byte.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from diffulex_edge.errors import ArtefactError
from diffulex_edge.files import read_sealed_json, sha256_file, sync_folder, write_atomic, write_sealed_json

SPLITS = ("train", "val")
FORMAT = "diffulex-edge-data/1"


@dataclass(frozen=True)
class Packed:
    """What is noted of a document in a token file."""

    n_tokens: int  # with the end-of-text that closes it
    n_chars: int
    script: str
    source: str
    rank: int  # the hash that chose the split


@dataclass
class Parts:
    """The unfinished token files of one preparation. `facts` is what makes two preparations the same one."""

    folder: Path
    dtype: np.dtype[Any]
    facts: dict[str, Any]
    n_seen: int = 0  # documents taken from the source, the empty ones too
    documents: dict[str, list[Packed]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    n_waiting: int = 0  # tokens added since the last commit: what a kill would cost
    _waiting: list[tuple[str, Packed]] = field(default_factory=list)
    _files: dict[str, BinaryIO] = field(default_factory=dict)

    def part(self, split: str) -> Path:
        return self.folder / f"{split}.part"

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    def open(self) -> None:
        """Takes up what an earlier preparation with the same facts left; throws away anything else."""
        if not self._restore():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self.n_seen, self.documents = 0, {split: [] for split in SPLITS}
            self._write_line({"facts": self.facts})
        for split in SPLITS:
            file = self._files[split] = open(self.part(split), "ab")  # noqa: SIM115 (closed in close)
            file.truncate(self._n_bytes(split))  # what was written after the last journal entry

    def add(self, split: str, ids: list[int], document: Packed) -> None:
        """Appends a document; it counts from the next commit on."""
        self._files[split].write(np.asarray(ids, self.dtype).tobytes())
        self._waiting.append((split, document))
        self.n_waiting += document.n_tokens

    def commit(self) -> None:
        """Makes everything added so far safe: first the tokens, then the journal that speaks of them."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._write_line({"n_seen": self.n_seen, "documents": [[s, *vars(d).values()] for s, d in self._waiting]})
        self._note(self._waiting)
        self._waiting, self.n_waiting = [], 0

    def close(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk: what is not committed does not count
                file.close()

    def _note(self, added: list[tuple[str, Packed]]) -> None:
        for split, document in added:
            self.documents[split].append(document)

    def _n_bytes(self, split: str) -> int:
        return sum(document.n_tokens for document in self.documents[split]) * self.dtype.itemsize

    def _write_line(self, entry: dict[str, Any]) -> None:
        with open(self.journal, "ab") as file:
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _restore(self) -> bool:
        try:
            data = self.journal.read_bytes()
        except FileNotFoundError:
            return False
        whole = data[: data.rfind(b"\n") + 1]  # a kill may have cut the last line short
        try:
            head, *entries = [json.loads(line) for line in whole.splitlines()] or [None]
            if head != _plain({"facts": self.facts}):
                return False
            for entry in entries:
                self.n_seen = entry["n_seen"]
                self._note([(split, Packed(*values)) for split, *values in entry["documents"]])
            sizes = {split: self.part(split).stat().st_size for split in SPLITS}
        except (ValueError, LookupError, TypeError, OSError):  # no journal of ours, or a part is gone
            return False
        os.truncate(self.journal, len(whole))
        return all(sizes[split] >= self._n_bytes(split) for split in SPLITS)


def _plain(facts: dict[str, Any]) -> Any:
    """As they read after a round trip through JSON."""
    return json.loads(json.dumps(facts))


def balance(parts: Parts) -> None:
    """Puts a document into either split where there are two: the one with the hash nearest to the border moves over."""
    for empty, full, nearest in (("val", "train", min), ("train", "val", max)):
        documents = parts.documents[full]
        if parts.documents[empty] or len(documents) < (2 if empty == "val" else 1):
            continue
        index = nearest(range(len(documents)), key=lambda i: documents[i].rank)
        start = sum(document.n_tokens for document in documents[:index])
        ids = np.fromfile(parts.part(full), parts.dtype)
        moved = slice(start, start + documents[index].n_tokens)
        write_atomic(parts.part(empty), ids[moved].tobytes())
        write_atomic(parts.part(full), np.delete(ids, moved).tobytes())
        parts.documents[empty].append(documents.pop(index))


def finish(parts: Parts, data_dir: Path, about: dict[str, Any]) -> None:
    """Gives the parts their names, with a meta.json that knows their digests; goes on where a kill stopped it."""
    balance(parts)
    splits = {split: _describe(parts, split) for split in SPLITS}
    facts = {"format": FORMAT, "dtype": parts.dtype.name, **about, "made_from": parts.facts, "splits": splits}
    write_sealed_json(parts.folder / "meta.json", facts)
    publish(parts.folder, data_dir)


def publish(folder: Path, data_dir: Path) -> None:
    """Moves a complete preparation out of its folder; meta.json last, so that it speaks of files that are there."""
    for split in SPLITS:
        if (folder / f"{split}.part").exists():
            os.replace(folder / f"{split}.part", data_dir / f"{split}.bin")
    sync_folder(data_dir)
    os.replace(folder / "meta.json", data_dir / "meta.json")
    sync_folder(data_dir)
    shutil.rmtree(folder)


def is_complete(folder: Path, facts: dict[str, Any]) -> bool:
    """True where the folder has a meta.json for these facts: only the renames of `publish` may be left to do."""
    try:
        return bool(read_sealed_json(folder / "meta.json").get("made_from") == _plain(facts))
    except ArtefactError:
        return False


def is_published(data_dir: Path, facts: dict[str, Any]) -> bool:
    """True where the data of these facts is there already, every byte of it."""
    if not is_complete(data_dir, facts):
        return False
    splits = read_sealed_json(data_dir / "meta.json")["splits"].values()
    files = [(data_dir / about["file"], about["sha256"]) for about in splits]
    return all(path.is_file() and sha256_file(path) == digest for path, digest in files)


def _describe(parts: Parts, split: str) -> dict[str, Any]:
    documents, end, rows = parts.documents[split], 0, []
    for document in documents:
        end += document.n_tokens
        rows.append({"end": end, "script": document.script, "source": document.source})
    return {
        "file": f"{split}.bin",
        "sha256": sha256_file(parts.part(split)),
        "n_tokens": end,
        "n_chars": sum(document.n_chars for document in documents),
        "documents": rows,
    }
