"""From text to token files: what is in them, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffulex_edge.errors import ArtefactError, ResourceError, UsageError
from diffulex_edge.files import alone_in, read_sealed_json, sha256_file
from diffulex_edge.tests.text_toys import config, content, make_shelf
from diffulex_edge.text import prepare as module
from diffulex_edge.text.normalize import normalize
from diffulex_edge.text.prepare import PrepareConfig, mixture, prepare, rank
from diffulex_edge.text.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def prepared(shelf: Path) -> Path:
    return prepare(config(shelf, shelf / "prepared"))


def test_every_document_is_in_one_split_whole_and_closed(shelf: Path, prepared: Path) -> None:
    meta, tokenizer = read_sealed_json(prepared / "meta.json"), load_tokenizer(shelf / "t.model")
    assert set(content(prepared)) == {"meta.json", "train.bin", "val.bin"}
    found: dict[str, list[str]] = {}
    for split, about in meta["splits"].items():
        ids = np.fromfile(prepared / about["file"], "<u2")
        ends = [document["end"] for document in about["documents"]]
        pieces = [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        assert all(piece[-1] == tokenizer.eos_id and tokenizer.eos_id not in piece[:-1] for piece in pieces)
        found[split] = [tokenizer.decode(piece.tolist()) for piece in pieces]
        assert about["n_tokens"] == len(ids) == ends[-1]
        assert about["n_chars"] == sum(map(len, found[split]))
        assert about["sha256"] == sha256_file(prepared / about["file"])
    lines = (shelf / "text.jsonl").read_text().splitlines()
    texts = [normalize(json.loads(line)["text"]) for line in lines]
    assert sorted(found["train"] + found["val"]) == sorted(text for text in texts if text.strip())
    assert not set(found["train"]) & set(found["val"]), "equal documents are on one side"
    assert 5 <= len(found["val"]) <= 35


def test_meta_names_the_vocabulary_scripts_and_sources(shelf: Path, prepared: Path) -> None:
    meta, tokenizer = read_sealed_json(prepared / "meta.json"), load_tokenizer(shelf / "t.model")
    assert (meta["format"], meta["dtype"], meta["vocab_size"]) == (
        "diffulex-edge-data/1",
        "uint16",
        tokenizer.vocab_size,
    )
    about = meta["tokenizer"]
    assert (prepared / about["path"]).resolve() == shelf / "t.model"
    assert (about["fingerprint"], about["sha256"]) == (tokenizer.fingerprint, sha256_file(shelf / "t.model"))
    assert (about["mask_id"], about["eos_id"], about["pad_id"]) == (3, 2, 0)
    rows = [row for split in meta["splits"].values() for row in split["documents"]]
    assert {row["source"] for row in rows} == {"text"}
    assert {row["script"] for row in rows} == {"devanagari", "roman", "mixed"}


def test_the_split_depends_on_the_seed_and_the_text_alone(shelf: Path, prepared: Path, tmp_path: Path) -> None:
    other = prepare(config(shelf, tmp_path / "a", seed=1))
    assert content(other)["val.bin"] != content(prepared)["val.bin"]
    ranks = [rank(str(i), 0) for i in range(2000)]
    assert sum(module.is_held_out(each, 0.25) for each in ranks) == pytest.approx(500, abs=80)
    assert module.is_held_out(0, 0.0) is False


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.999])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_both_splits_have_a_document_where_there_are_two(n: int, fraction: float, shelf: Path, tmp_path: Path) -> None:
    made = prepare(config(shelf, tmp_path / "d", max_documents=n, val_fraction=fraction))
    splits = read_sealed_json(made / "meta.json")["splits"]
    counts = {name: len(split["documents"]) for name, split in splits.items()}
    assert sum(counts.values()) == n
    assert counts["train"] >= 1
    assert counts["val"] >= (n > 1)
    assert all(
        (made / s["file"]).stat().st_size == 2 * s["n_tokens"] and s["sha256"] == sha256_file(made / s["file"])
        for s in splits.values()
    )


def test_a_tokenizer_is_trained_where_there_is_none(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "own.model"
    prepare(config(shelf, tmp_path / "a", tokenizer=path, vocab_size=650))
    first = path.read_bytes()
    assert load_tokenizer(path).vocab_size == 650
    assert capsys.readouterr().err == ""
    path.unlink()
    prepare(config(shelf, tmp_path / "b", tokenizer=path, vocab_size=650))
    assert path.read_bytes() == first
    assert content(tmp_path / "a") == content(tmp_path / "b")
    prepare(config(shelf, tmp_path / "c", tokenizer=tmp_path / "big.model", vocab_size=30_000))
    assert "not 30,000" in capsys.readouterr().err


def test_a_tokenizer_is_trained_on_what_is_not_held_out(shelf: Path, tmp_path: Path) -> None:
    strange = {"text": "ꯀꯁꯂ " * 4000}
    for n in range(9):
        (tmp_path / "a.jsonl").write_text(json.dumps(strange) + "\n" + (shelf / "text.jsonl").read_text())
        chosen = config(
            shelf, tmp_path / f"d{n}", source=(str(tmp_path / "a.jsonl"),), tokenizer=tmp_path / f"{n}.model", seed=n
        )
        prepare(chosen)
        held = rank(normalize(strange["text"]), n) < 0.2 * 2**53
        assert (len(load_tokenizer(chosen.tokenizer).encode("ꯀꯁꯂ")) > 3) == held
    alone = config(shelf, tmp_path / "alone", max_documents=1, val_fraction=0.999, tokenizer=tmp_path / "alone.model")
    assert (prepare(alone) / "meta.json").exists()


def test_the_tokenizer_hears_a_quarter_of_roman_and_mixed_text() -> None:
    sample = [("क" * 100, "devanagari")] * 30 + [("a" * 50, "roman")] * 5 + [("aक" * 50, "mixed")] * 5
    heard = list(mixture(sample))
    latin = sum(len(text) for text in heard if "a" in text)
    assert latin / sum(map(len, heard)) == pytest.approx(module.LATIN_SHARE, abs=0.02)
    assert set(heard) == {text for text, _ in sample}
    few = list(mixture([("क" * 1000, "devanagari"), ("a", "roman")]))
    assert few.count("a") == module.LATIN_REPEATS
    assert list(mixture([("a", "roman")] * 3)) == ["a"] * 3


def test_demo_is_a_source_and_sources_add_up(shelf: Path, tmp_path: Path) -> None:
    made = prepare(config(shelf, tmp_path, source=("demo", str(shelf / "text.jsonl")), demo_documents=4))
    rows = [
        row["source"] for split in read_sealed_json(made / "meta.json")["splits"].values() for row in split["documents"]
    ]
    assert rows.count("demo") == 4
    assert rows.count("text") == 88


@pytest.mark.parametrize("text", ["", "\n\n", '{"text": ""}\n{"text": " \\u0000"}\n'])
def test_data_without_text_is_refused(text: str, shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text(text)
    for tokenizer in (shelf / "t.model", tmp_path / "none.model"):
        with pytest.raises(UsageError, match=r"empty\.jsonl"):
            prepare(config(shelf, tmp_path / "d", source=(str(tmp_path / "empty.jsonl"),), tokenizer=tokenizer))
    assert not (tmp_path / "d" / "meta.json").exists()


def test_data_of_another_tokenizer_is_not_replaced_unasked(shelf: Path, tmp_path: Path) -> None:
    prepare(config(shelf, tmp_path / "d"))
    before = content(tmp_path / "d")
    other = config(shelf, tmp_path / "d", tokenizer=tmp_path / "other.model", vocab_size=620)
    with pytest.raises(UsageError, match=r"another tokenizer than .*other\.model.*--overwrite"):
        prepare(other)
    assert content(tmp_path / "d") == before
    prepare(replace(other, overwrite=True))
    assert content(tmp_path / "d")["train.bin"] != before["train.bin"]


def test_what_is_there_already_is_not_made_again(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(config(shelf, tmp_path))
    before = content(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_add", None)
        prepare(config(shelf, tmp_path))
        (tmp_path / "val.bin").write_bytes(b"damaged")
        with pytest.raises(TypeError):
            prepare(config(shelf, tmp_path))
    prepare(config(shelf, tmp_path))
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": ()}, "source"),
        ({"val_fraction": 1.0}, "val_fraction=1.0"),
        ({"val_fraction": float("nan")}, "val_fraction=nan"),
        ({"vocab_size": 100}, "vocab_size=100"),
        ({"max_documents": -1}, "max_documents=-1"),
        ({"demo_documents": 0}, "demo_documents=0"),
        ({"chunk_tokens": 0}, "chunk_tokens=0"),
    ],
)
def test_nonsense_is_refused_by_value_and_rule(changes: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        PrepareConfig(**changes)  # type: ignore[arg-type]


def test_a_bad_line_a_bad_tokenizer_and_a_bad_folder_are_named(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\n{"text": 5}\n')
    with pytest.raises(ArtefactError, match=r"bad\.jsonl:2"):
        prepare(config(shelf, tmp_path / "a", source=(str(tmp_path / "bad.jsonl"),)))
    (tmp_path / "bad.model").write_bytes(b"x")
    with pytest.raises(ArtefactError, match=r"bad\.model"):
        prepare(config(shelf, tmp_path / "a", tokenizer=tmp_path / "bad.model"))
    with pytest.raises(UsageError, match=r"bad\.model: no folder"):
        prepare(config(shelf, tmp_path / "bad.model"))


def test_two_preparations_do_not_share_a_folder(shelf: Path, tmp_path: Path) -> None:
    with alone_in(tmp_path, "preparation"), pytest.raises(ResourceError, match="another preparation is at work"):
        prepare(config(shelf, tmp_path))
    prepare(config(shelf, tmp_path))
