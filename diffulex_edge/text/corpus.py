"""Documents from files and folders, read one by one: .txt, .jsonl, .jsonl.gz, .parquet."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffulex_edge.errors import ArtefactError, BackendUnavailable, UsageError
from diffulex_edge.text.script import SCRIPTS, script_of


@dataclass(frozen=True)
class Document:
    """A text, where it comes from, and its main script: one of SCRIPTS."""

    text: str
    source: str
    script: str


def make_document(fields: dict[str, Any], where: str, source: str) -> Document:
    """From a record with `text` and perhaps `source` and `script`; what is not there is found or filled in."""
    text = fields.get("text")
    if not isinstance(text, str):
        raise ArtefactError(f"{where}: needs a field `text` that is a string, has {_told(fields)}")
    script, given = fields.get("script"), fields.get("source")
    return Document(
        text,
        given if isinstance(given, str) and given else source,
        script if isinstance(script, str) and script in SCRIPTS else script_of(text),
    )


def _told(fields: dict[str, Any]) -> str:
    return ", ".join(f"`{name}` ({type(value).__name__})" for name, value in fields.items()) or "no fields"


def read_documents(paths: Iterable[Path | str]) -> Iterator[Document]:
    """Reads files, and folders with all that is below them in the order of their names."""
    for file in list_files(paths):
        yield from _reader(file)(file)


def list_files(paths: Iterable[Path | str]) -> list[Path]:
    """The data files that the paths stand for, in the order in which they are read."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if _kind(file) and file.is_file()]
            inside = [file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts)]
            if not inside:
                raise UsageError(f"{path}: no file in this folder ends in {', '.join(READERS)}")
            found += inside
        elif path.is_file():
            _reader(path)
            found.append(path)
        else:
            raise ArtefactError(f"{path}: no such file or folder")
    return found


def _kind(path: Path) -> str | None:
    return next((ending for ending in READERS if path.name.lower().endswith(ending)), None)


def _reader(path: Path) -> Callable[[Path], Iterator[Document]]:
    kind = _kind(path)
    if kind is None:
        raise UsageError(f"{path}: its name must end in {', '.join(READERS)}")
    return READERS[kind]


def _read_txt(path: Path) -> Iterator[Document]:
    """The whole file is one document."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{path}: not UTF-8 at byte {error.start}") from error
    yield make_document({"text": text}, str(path), path.stem)


def _read_jsonl(path: Path) -> Iterator[Document]:
    with open(path, "rb") as file:
        yield from _json_lines(file, path)


def _read_jsonl_gz(path: Path) -> Iterator[Document]:
    try:
        with gzip.open(path, "rb") as file:
            yield from _json_lines(file, path)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ArtefactError(f"{path}: damaged gzip data ({error})") from error


def _json_lines(file: Iterable[bytes], path: Path) -> Iterator[Document]:
    source = path.name.split(".")[0]
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            fields = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            raise ArtefactError(f"{where}: not a line of JSON in UTF-8 ({error})") from error
        if not isinstance(fields, dict):
            raise ArtefactError(f"{where}: must be an object with a field `text`, is {type(fields).__name__}")
        yield make_document(fields, where, source)


def _read_parquet(path: Path) -> Iterator[Document]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise BackendUnavailable("reading .parquet needs pyarrow: pip install 'diffulex-edge[parquet]'") from error
    try:
        with parquet.ParquetFile(path) as file:
            columns = [name for name in ("text", "source", "script") if name in file.schema_arrow.names]
            row = 0
            for batch in file.iter_batches(batch_size=256, columns=columns):
                for fields in batch.to_pylist():
                    row += 1
                    yield make_document(fields, f"{path}: row {row}", path.stem)
    except (ArrowException, OSError) as error:
        raise ArtefactError(f"{path}: not a readable parquet file ({error})") from error


READERS: dict[str, Callable[[Path], Iterator[Document]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl_gz,
    ".parquet": _read_parquet,
}
