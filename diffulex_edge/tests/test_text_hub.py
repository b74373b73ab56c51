"""Data sets in the hub's layout, read by the real `datasets` from a local folder: no network is asked for anything."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffulex_edge.errors import ArtefactError, Interrupted, UsageError
from diffulex_edge.tests.text_toys import config, content, make_shelf
from diffulex_edge.text import hub
from diffulex_edge.text import prepare as module
from diffulex_edge.text.demo import demo_documents
from diffulex_edge.text.prepare import prepare
from diffulex_edge.text.source import Streamed

datasets = pytest.importorskip("datasets")
parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")

TEXTS = [document.text for document in demo_documents(24, seed=8)]
CARD = "---\nconfigs:\n- config_name: hin_Deva\n  data_files: [{split: train, path: deva/*.parquet}]\n---\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of three parquet shards."""
    root = tmp_path_factory.mktemp("hub") / "owner" / "name"
    (root / "deva").mkdir(parents=True)
    (root / "README.md").write_text(CARD)
    for i in range(3):
        table = pyarrow.table({"text": TEXTS[8 * i : 8 * i + 8], "id": list(range(8))})
        parquet.write_table(table, root / "deva" / f"train-0000{i}-of-00003.parquet")
    return root


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines of which the third has no text."""
    root = tmp_path_factory.mktemp("lines")
    rows = [{"cs_query": text if i != 2 else None} for i, text in enumerate(TEXTS)]
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture
def streamed(repository: Path, lines: Path) -> Streamed:
    shards = hub.HubData(id=str(repository), config="hin_Deva", documents=20)
    return Streamed((shards, hub.HubData(id=str(lines), column="cs_query", rows=4, documents=5)))


def test_shards_are_read_in_their_order_up_to_the_cap(repository: Path) -> None:
    read = [document.text for document in hub.stream(hub.HubData(id=str(repository), config="hin_Deva", documents=20))]
    assert read == TEXTS[:20], "two shards, and half of the third"
    whole = hub.HubData(id=str(repository), config="hin_Deva")
    assert [document.text for document in hub.stream(whole)] == TEXTS


def test_rows_are_joined_and_a_null_among_them_is_empty(lines: Path) -> None:
    data = hub.HubData(id=str(lines), column="cs_query", rows=4, documents=2)
    assert [document.text for document in hub.stream(data)] == [
        "\n".join([*TEXTS[:2], "", TEXTS[3]]),
        "\n".join(TEXTS[4:8]),
    ]


def test_a_preparation_of_streamed_text_goes_on_after_a_stop_and_ends_with_the_same_bytes(
    streamed: Streamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = make_shelf(tmp_path)
    monkeypatch.setitem(hub.PRESETS, "toy", streamed.parts)
    whole, halves = (config(shelf, tmp_path / name, source=("toy",), chunk_tokens=400) for name in ("a", "b"))
    prepare(whole)
    add, seen = module._add, itertools.count(1)

    def stops(*given: object) -> None:
        if next(seen) == 15:
            raise KeyboardInterrupt
        add(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "_add", stops)
        with pytest.raises(Interrupted):
            prepare(halves)
    again = itertools.count()
    monkeypatch.setattr(module, "_add", lambda *given: (next(again), add(*given)))
    prepare(halves)
    assert next(again) < 15, "not from the start"
    assert content(halves.data_dir) == content(whole.data_dir)
    assert len(json.loads(content(whole.data_dir)["meta.json"])["splits"]["train"]["documents"]) <= 25


def test_a_cap_over_all_sources_holds(streamed: Streamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.PRESETS, "toy", streamed.parts)
    few = config(make_shelf(tmp_path), tmp_path / "few", source=("toy",), max_documents=7)
    splits = json.loads((prepare(few) / "meta.json").read_text())["splits"]
    assert sum(len(split["documents"]) for split in splits.values()) == 7


def _scripted(root: Path) -> None:
    (root / f"{root.name}.py").write_text("raise SystemExit")


def _cut(root: Path) -> None:
    import gzip

    (root / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-20])


def _nonsense(root: Path) -> None:
    (root / "a.jsonl").write_text('{"text": "a"}\n{"text": nonsense\n')


@pytest.mark.parametrize("spoil", [_scripted, _cut, _nonsense, lambda root: None])
def test_a_data_set_that_cannot_be_read_is_one_clear_line(spoil: object, tmp_path: Path) -> None:
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(UsageError, match="cannot be read as a data set of the hub"):
        list(hub.stream(hub.HubData(id=str(tmp_path))))


@pytest.mark.parametrize("change", [{"config": "hin_Latn"}, {"config": "hin_Deva", "split": "test"}])
def test_a_configuration_or_split_that_is_not_there_is_a_usage_error(repository: Path, change: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="Available"):
        list(hub.stream(hub.HubData(id=str(repository), **change)))  # type: ignore[arg-type]


def test_a_column_that_is_not_there_is_named_beside_those_that_are(repository: Path) -> None:
    rows: Iterator[object] = hub.stream(hub.HubData(id=str(repository), config="hin_Deva", column="body"))
    with pytest.raises(ArtefactError, match="no text in column 'body'; its columns: text, id"):
        next(rows)
