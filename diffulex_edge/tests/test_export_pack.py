"""A device pack: whole or refused, and its golden texts come out."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from diffulex_edge.cli.main import main
from diffulex_edge.errors import ArtefactError
from diffulex_edge.export.pack import TARGETS, check, peek
from diffulex_edge.model.checkpoint import verify
from diffulex_edge.tests import pack_toys

pytestmark = pytest.mark.export
FLIPS, CUTS = 300, 100


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(pack_toys.pack("memory"), tmp_path / "pack")
    return tmp_path / "pack"


@pytest.mark.parametrize("name", pack_toys.MODELS)
def test_the_golden_texts_come_out(name: str) -> None:
    assert check(pack_toys.pack(name)) == 5
    contract = peek(pack_toys.pack(name))["contract"]
    assert contract["context"] == pack_toys.CONTEXTS.get(name, name)
    assert contract["tokenizer"]["kind"] == ("tokenizer.json" if name == "json" else "sentencepiece")
    assert all(sum(row) == hidden for hidden, row in enumerate(contract["counts"]))
    assert all(len(row) <= 4 for row in contract["counts"])
    assert contract["target"] == pack_toys.TARGETS[name]
    assert set(TARGETS[contract["target"]]) <= {path.name for path in pack_toys.pack(name).iterdir()}


def test_every_damaged_file_is_refused_before_it_is_parsed(copied: Path) -> None:
    chance = random.Random(0)
    for path in sorted(copied.iterdir()):
        whole = path.read_bytes()
        places = [chance.randrange(8 * len(whole)) for _ in range(FLIPS)]
        damaged = [
            (at, bytes([*whole[: at // 8], whole[at // 8] ^ 1 << at % 8, *whole[at // 8 + 1 :]])) for at in places
        ]
        damaged += [(size, whole[:size]) for size in (chance.randrange(len(whole)) for _ in range(CUTS))]
        for at, data in damaged:
            path.write_bytes(data)
            assert _refused(copied), f"{path.name} damaged at {at} was taken"
        path.write_bytes(whole)
    verify(copied)


def _refused(folder: Path) -> bool:
    try:
        verify(folder)
    except ArtefactError:
        return True
    return False


def test_the_verb_tells_of_damage_in_one_line(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["peek", str(copied)]) == 0
    assert "sentencepiece" in capsys.readouterr().out
    (copied / "tokenizer.model").unlink()
    assert main(["peek", str(copied)]) == 3
    said = capsys.readouterr().err.strip()
    assert "tokenizer.model: no such file" in said and said.count("\n") == 0


def test_a_golden_text_that_does_not_come_out_is_named(copied: Path) -> None:
    golden = json.loads((copied / "golden.json").read_text())
    golden["texts"][1]["tokens"][0] += 1
    from diffulex_edge.model import checkpoint

    files = {p.name: checkpoint.content(p.read_bytes()) for p in copied.iterdir() if p.name != "manifest.json"}
    checkpoint.write(copied, {**files, "golden.json": checkpoint.document(golden)})
    with pytest.raises(ArtefactError, match="gives other tokens here"):
        check(copied)


@pytest.mark.parametrize(("context", "modes"), [("memory", ("block_frozen",)), ("canvas", ("dual", "canvas"))])
def test_a_program_is_measured_like_a_model(context: str, modes: tuple[str, ...], tmp_path: Path) -> None:
    table, program = tmp_path / "bench.json", pack_toys.pack(context) / "model.pte"
    words = ["bench", "--pte", str(program), "--max_new_tokens", "8", "--block_size", "8", "--runs_per_prompt", "1"]
    words += ["--quality_documents", "1", "--quality_window", "32", "--json", str(table), "--modes", *modes]
    assert main(words) == 0
    rows = json.loads(table.read_text())["rows"]
    assert [row["name"] for row in rows] == list(modes)
    assert all(row["tokens_per_s"] > 0 and row["block_nelbo"] > 0 and row["pll_t0"] is None for row in rows)
