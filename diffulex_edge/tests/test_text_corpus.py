"""Documents from files, folders, the hub, and the names that `--source` takes."""

from __future__ import annotations

import gzip
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffulex_edge.errors import ArtefactError, BackendUnavailable, ResourceError, UsageError
from diffulex_edge.text import hub
from diffulex_edge.text.corpus import Document, read_documents
from diffulex_edge.text.source import Files, Generated, Streamed, find_source

ROWS = [
    {"text": "नमस्ते दुनिया", "source": "greeting", "script": "mixed"},
    {"text": "kal milte hain"},
    {"text": "", "script": "klingon", "source": 5},
]
READ = [
    Document("नमस्ते दुनिया", "greeting", "mixed"),
    Document("kal milte hain", "a", "roman"),
    Document("", "a", "other"),
]


def write_lines(path: Path, rows: list[Any] = ROWS) -> Path:
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_give_a_document_each(name: str, tmp_path: Path) -> None:
    assert list(read_documents([write_lines(tmp_path / name)])) == READ


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "कथा.txt").write_bytes("\ufeffएक था राजा\r\nदो".encode())
    assert list(read_documents([tmp_path / "कथा.txt"])) == [Document("एक था राजा\r\nदो", "कथा", "devanagari")]


def test_parquet_gives_a_document_a_row(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(
        arrow.table({"text": ["एक", "do"], "script": ["devanagari", None], "n": [1, 2]}), tmp_path / "a.parquet"
    )
    assert list(read_documents([tmp_path / "a.parquet"])) == [
        Document("एक", "a", "devanagari"),
        Document("do", "a", "roman"),
    ]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(ArtefactError, match=r"b\.parquet"):
        list(read_documents([tmp_path / "b.parquet"]))


def test_a_folder_gives_all_below_it_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("c.txt", "b/z.txt", "a.txt", ".hidden/x.txt", "notes.md"):
        (tmp_path / name).write_text(name)
    assert [document.text for document in read_documents([tmp_path])] == ["a.txt", "b/z.txt", "c.txt"]


def test_documents_are_read_one_by_one(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "एक"}, "bad"])
    assert next(read_documents([path])).text == "एक"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{broken", r"a\.jsonl:2: not a line of JSON"),
        (b"[1]", r"a\.jsonl:2: must be an object.*is list"),
        (b'{"txt": 1}', r"a\.jsonl:2: needs a field `text` that is a string, has `txt` \(int\)"),
        (b'{"text": 5}', r"a\.jsonl:2: needs a field `text` that is a string, has `text` \(int\)"),
        (b'{"text": "\xff"}', r"a\.jsonl:2: not a line of JSON in UTF-8"),
        (b"[" * 100_000, r"a\.jsonl:2: not a line of JSON"),
    ],
)
def test_a_bad_line_is_named(line: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n' + line + b"\n")
    with pytest.raises(ArtefactError, match=told):
        list(read_documents([tmp_path / "a.jsonl"]))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = write_lines(tmp_path / "a.jsonl.gz", ROWS * 50).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 16
    for data in (whole[:-20], bytes(flipped), b"plain text"):
        (tmp_path / "a.jsonl.gz").write_bytes(data)
        with pytest.raises(ArtefactError, match=r"a\.jsonl\.gz"):
            list(read_documents([tmp_path / "a.jsonl.gz"]))
    (tmp_path / "b.txt").write_bytes(b"abc\xffdef")
    with pytest.raises(ArtefactError, match=r"b\.txt: not UTF-8 at byte 3"):
        list(read_documents([tmp_path / "b.txt"]))


def test_what_cannot_be_read_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no such file or folder"):
        list(read_documents([tmp_path / "nothing"]))
    with pytest.raises(UsageError, match=r"no file in this folder ends in \.txt"):
        list(read_documents([tmp_path]))
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(UsageError, match=r"its name must end in \.txt, \.jsonl"):
        list(read_documents([tmp_path / "a.doc"]))


def test_what_a_source_name_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_source("demo", n_demo=3, seed=1) == Generated(3, 1)
    assert find_source("hindi", n_demo=3, seed=1) == Streamed(hub.PRESETS["hindi"])
    assert find_source("owner/name:hi", n_demo=3, seed=1) == Streamed((hub.HubData(id="owner/name", config="hi"),))
    for folder in ("demo", "owner/name"):
        Path(folder).mkdir(parents=True)
    assert find_source("demo", n_demo=3, seed=1) == Generated(3, 1), "a folder of that name is ./demo"
    assert find_source("./demo", n_demo=3, seed=1) == Files(Path("demo"))
    assert find_source("owner/name", n_demo=3, seed=1) == Files(Path("owner/name"))
    for empty in ("", " "):
        with pytest.raises(UsageError, match="a name is empty"):
            find_source(empty, n_demo=3, seed=1)
    for missing in ("data/text.jsonl", "nothing", "/a/b", "a/b/c"):
        with pytest.raises(ArtefactError, match="no such file or folder"):
            find_source(missing, n_demo=3, seed=1)


def test_equal_files_have_equal_facts_wherever_they_lie(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_lines(tmp_path / folder / "a.jsonl")
    assert Files(tmp_path / "one").facts() == Files(tmp_path / "two").facts()
    write_lines(tmp_path / "two" / "a.jsonl", ROWS[:1])
    assert Files(tmp_path / "one").facts() != Files(tmp_path / "two").facts()


def test_the_hub_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BackendUnavailable, match=r"owner/name.*pip install 'diffulex-edge\[hub\]'"):
        next(find_source("owner/name", n_demo=1, seed=0).documents())


def scripted_hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    """Puts a `datasets` in place that notes its calls and streams what `answer(id)` gives."""
    calls: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None, **rest: Any) -> Iterator[dict[str, Any]]:
        calls.append((name, config, rest))
        yield from answer(name)

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_hub_data_sets_are_streamed_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted_hub(monkeypatch, lambda name: ({"text": f"{name} {i}"} for i in range(100)))
    parts = (hub.HubData(id="a/a", documents=4, config="hi"), hub.HubData(id="b/b", documents=2, rows=2))
    read = [document.text for document in Streamed(parts).documents()]
    assert read == ["a/a 0", "a/a 1", "b/b 0\nb/b 1", "a/a 2", "a/a 3", "b/b 2\nb/b 3"]
    assert calls[0] == ("a/a", "hi", {"data_dir": None, "split": "train", "streaming": True})


@pytest.mark.parametrize("preset", hub.PRESETS)
def test_a_preset_is_bounded_and_says_its_licences(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_hub(monkeypatch, lambda name: ({"text": "अ", "cs_query": "a"} for _ in range(30)))
    parts = hub.PRESETS[preset]
    assert all(part.documents and part.licence for part in parts)
    assert {document.source for document in Streamed(parts).documents()} == {part.id for part in parts}
    assert json.loads(json.dumps(Streamed(parts).facts()))[0]["licence"] == parts[0].licence


def _fails_with(error: Exception) -> Any:
    def answer(name: str) -> Iterator[dict[str, Any]]:
        raise error
        yield {}

    return answer


@pytest.mark.parametrize(
    ("error", "becomes", "told"),
    [
        (
            ConnectionError("Couldn't reach it\nmore"),
            ResourceError,
            r"x/y: cannot be read from the hub \(Couldn't reach it\)",
        ),
        (FileNotFoundError("no such data set"), UsageError, "x/y: cannot be read as a data set"),
        (ValueError("Bad split"), UsageError, "Bad split"),
    ],
)
def test_what_the_hub_cannot_give_is_one_clear_line(
    error: Exception, becomes: type[Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_hub(monkeypatch, _fails_with(error))
    with pytest.raises(becomes, match=told):
        list(find_source("x/y", n_demo=1, seed=0).documents())


def test_a_data_set_without_the_column_names_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_hub(monkeypatch, lambda name: [{"body": "x", "id": 1}])
    with pytest.raises(ArtefactError, match=r"x/y: row 1 has no text in column 'text'; its columns: body, id"):
        list(find_source("x/y", n_demo=1, seed=0).documents())
