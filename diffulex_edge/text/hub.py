"""Data sets of the Hugging Face hub, streamed: only the rows that are read are downloaded, no code of theirs runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from diffulex_edge.errors import ArtefactError, BackendUnavailable, ResourceError, UsageError
from diffulex_edge.text.corpus import Document, make_document


@dataclass(frozen=True, kw_only=True)
class HubData:
    """Where a data set lies, and how much of it is taken."""

    id: str
    config: str | None = None
    data_dir: str | None = None
    split: str = "train"
    column: str = "text"
    rows: int = 1  # joined by newlines make a document
    documents: int | None = None  # the first so many; None: all
    licence: str = "see the data set's card"  # as its card says; check it before you publish what you train


WIKIPEDIA = HubData(id="wikimedia/wikipedia", config="20231101.hi", documents=30_000, licence="CC BY-SA 3.0 and GFDL")
WEB = HubData(id="HuggingFaceFW/fineweb-2", config="hin_Deva", documents=10_000, licence="ODC-By 1.0")
WEB_ROMAN = HubData(id="HuggingFaceFW/fineweb-2", config="hin_Latn", documents=7_500, licence="ODC-By 1.0")
HINGLISH_TOP = HubData(
    id="WillHeld/hinglish_top", column="cs_query", rows=20, documents=350, licence="Apache-2.0; check the card"
)
SANGRAHA = HubData(id="ai4bharat/sangraha", data_dir="verified/hin", documents=2_500, licence="CC BY 4.0")

PRESETS: dict[str, tuple[HubData, ...]] = {
    "hindi": (WIKIPEDIA, WEB, WEB_ROMAN, HINGLISH_TOP),
    "hinglish": (WEB_ROMAN, HINGLISH_TOP, SANGRAHA),
}


def named(source: str) -> HubData:
    """From `owner/name` or `owner/name:config`."""
    name, _, config = source.partition(":")
    return HubData(id=name, config=config or None)


def describe(data: HubData) -> dict[str, Any]:
    """What decides which rows are read, and their licence."""
    return asdict(data)


def stream(data: HubData) -> Iterator[Document]:
    """Reads the rows one by one, in the order in which they are stored.

    Raises BackendUnavailable without `datasets`, ResourceError if the hub cannot be reached, UsageError if it has no
    such data set.
    """
    texts = itertools.islice(_texts(data), None if data.documents is None else data.documents * data.rows)
    while joined := list(itertools.islice(texts, data.rows)):
        yield make_document({"text": "\n".join(joined)}, data.id, data.id)


def _texts(data: HubData) -> Iterator[str]:
    for number, row in enumerate(_rows(data), start=1):
        text = row.get(data.column, 0)
        if not isinstance(text, str | None):
            raise ArtefactError(
                f"{data.id}: row {number} has no text in column {data.column!r}; its columns: {', '.join(row)}"
            )
        yield text or ""  # a null is an empty document


def _rows(data: HubData) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise BackendUnavailable(
            f"{data.id} is no file or folder here; to stream it from the hub: pip install 'diffulex-edge[hub]'"
        ) from error
    unreachable: tuple[type[Exception], ...] = (OSError, *network_errors())
    try:
        yield from datasets.load_dataset(data.id, data.config, data_dir=data.data_dir, split=data.split, streaming=True)
    except (FileNotFoundError, ValueError, RuntimeError, EOFError) as error:
        # no such data set, configuration or split; one that comes as a program; one whose files are damaged
        raise UsageError(f"{data.id}: cannot be read as a data set of the hub ({first_line(error)})") from error
    except unreachable as error:
        raise ResourceError(f"{data.id}: cannot be read from the hub ({first_line(error)})") from error


def network_errors() -> tuple[type[Exception], ...]:
    """What the hub's client lets through: the errors of the HTTP library that it is built on."""
    found: list[type[Exception]] = []
    for library in ("httpx", "httpx2"):
        try:
            found.append(__import__(library).HTTPError)
        except ImportError:
            continue
    return tuple(found)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
