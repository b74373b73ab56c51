"""What `--source` may name: a file or folder, the generated text, a preset of hub data sets, or one hub data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import sha256_file
from diffulex_edge.text import hub
from diffulex_edge.text.corpus import READERS, Document, list_files, read_documents
from diffulex_edge.text.demo import demo_documents

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?")


class Source(Protocol):
    """A stream of documents that is the same each time it is read."""

    def documents(self) -> Iterator[Document]: ...

    def facts(self) -> list[dict[str, Any]]:
        """What decides the documents: equal facts, equal documents. No paths: they hold on another machine too."""
        ...


@dataclass(frozen=True)
class Files:
    path: Path

    def documents(self) -> Iterator[Document]:
        return read_documents([self.path])

    def facts(self) -> list[dict[str, Any]]:
        return [{"file": file.name, "sha256": sha256_file(file)} for file in list_files([self.path])]


@dataclass(frozen=True)
class Generated:
    n_documents: int
    seed: int

    def documents(self) -> Iterator[Document]:
        return demo_documents(self.n_documents, self.seed)

    def facts(self) -> list[dict[str, Any]]:
        return [{"generated": self.n_documents, "seed": self.seed}]


@dataclass(frozen=True)
class Streamed:
    parts: tuple[hub.HubData, ...]

    def documents(self) -> Iterator[Document]:
        """Takes the parts by turns, in proportion to what is wanted of each: the first documents are a fair sample."""
        streams = {part: hub.stream(part) for part in self.parts}
        taken = dict.fromkeys(self.parts, 0)
        while streams:
            part = min(streams, key=lambda part: (taken[part] + 1) / (part.documents or 1))
            document = next(streams[part], None)
            if document is None:
                del streams[part]
                continue
            taken[part] += 1
            yield document

    def facts(self) -> list[dict[str, Any]]:
        return [hub.describe(part) for part in self.parts]


def find_source(name: str, *, n_demo: int, seed: int) -> Source:
    """What a name stands for: `demo` or a preset first, then a path that exists, then a data set of the hub."""
    known: dict[str, Source] = {preset: Streamed(parts) for preset, parts in hub.PRESETS.items()}
    known["demo"] = Generated(n_demo, seed)
    if not name.strip():
        raise UsageError("source: a name is empty")
    if name in known:
        return known[name]
    if Path(name).exists():
        return Files(Path(name))
    if _HUB_ID.fullmatch(name) and not name.lower().endswith(tuple(READERS)):
        return Streamed((hub.named(name),))
    raise ArtefactError(
        f"{name}: no such file or folder; {', '.join(sorted(known))} or OWNER/NAME of a hub data set would do too"
    )
