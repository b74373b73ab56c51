"""The verdict, the growth with length, and the page and pictures made of the rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffulex_edge.errors import UsageError
from diffulex_edge.suite.jobs import Results
from diffulex_edge.suite.lengths import at_lengths, by_length, crossover, exponent
from diffulex_edge.suite.page import page
from diffulex_edge.suite.plots import draw
from diffulex_edge.suite.seeds import BASELINE, CHALLENGER, RIVAL, RIVALS
from diffulex_edge.suite.verdict import verdict
from diffulex_edge.tests import suite_rows
from diffulex_edge.tests.tree import ROOT


def test_the_page_in_the_repository_is_made_of_the_rows_in_the_repository() -> None:
    rows = Results(ROOT / "docs/results").read()
    assert (ROOT / "docs/results.md").read_text() == page(rows), "run `make docs`"


def test_ecohybrid_is_primary_only_where_every_rule_holds() -> None:
    assert verdict(suite_rows.whole())["verdict"] == "primary"
    for fault in ({"ratio": 1.4}, {"worse": 1.031}, {"skipped": 1}):
        found = verdict(suite_rows.whole(**fault))
        assert found["verdict"] == "backup"
        assert not all(rule["holds"] for rule in found["rules"])


def test_a_verdict_on_rows_that_are_not_there_names_the_first() -> None:
    rows = suite_rows.whole()
    del rows["quality-eco-s1"]
    with pytest.raises(UsageError, match="quality-eco-s1"):
        verdict(rows)


def test_exponents_and_the_crossover_are_those_of_the_figures() -> None:
    rows = suite_rows.whole()
    slow, fast = (by_length(at_lengths(rows, RIVALS), side, "latency_ms", "p50") for side in (BASELINE, CHALLENGER))
    assert exponent(slow) == pytest.approx(2)
    assert exponent(fast) == pytest.approx(1)
    assert crossover(fast, slow) == pytest.approx(512)
    assert crossover(slow, fast) is None
    assert crossover({256: 1.0, 512: 1.0}, {256: 2.0, 512: 2.0}) == 256
    assert exponent({256: 1.0, 512: 2.0}) is None


def test_the_page_shows_each_figure_in_its_place_and_what_was_left_out() -> None:
    lengths = {"length-1024": suite_rows.length(1024)}
    said = page(suite_rows.whole() | lengths | {"recall-s1": suite_rows.recall(1, 0.99), "step": suite_rows.step()})
    assert "| 1 | 0.990 | 0.130 | 600 | 90 |" in said
    assert "| bf16 | 1.000 | eager | 3.000 | 3.000 |" in said
    assert "**primary**" in said
    assert "| eco | 4.40 M | 15.0 M | 3 | 1.600 +- 0.000 | 2.100 +- 0.000 |" in said
    assert "| eco-s0 | 1.600 | 1.620 | 1.700 | 1.800 | +1.2% | 80% |" in said
    assert f"`{CHALLENGER}` is faster from N = 512 on than `{BASELINE}`" in said
    assert "| 1024 | 2.000 | 1.900 | 2.100 | 14.7 |" in said
    assert "`causal-s0`" in said.split("Not measured yet")[1]


def test_a_sweep_shows_speed_and_quality_of_each_side_and_what_the_documents_have() -> None:
    said = page({"steps": suite_rows.length(256)})
    assert f"| {CHALLENGER} | 512 | 2.000 (1.900 to 2.100) | 12 | 1.500 | 60 | 0.010 |" in said
    assert "| the documents |  |  |  |  | 70 | 0.020 |" in said
    assert "eco, full: too slow" in said


def test_the_longest_row_says_what_is_as_good_as_the_causal_model_and_how_much_faster() -> None:
    rival = suite_rows.side(RIVAL, 4, 4096)
    rival["sampled"] = suite_rows.out_of_reach(judge_ppl=61, entropy=3.5)
    sides = [suite_rows.side(CHALLENGER, 2, 4096), rival]
    said = page({"rivals-4096": suite_rows.row({"baseline": CHALLENGER, "rows": sides, "skipped": []})})
    assert f"| {CHALLENGER} | 2,048 | 2.000 | 60 |" in said
    assert f"| {RIVAL} | 1,024 | 1.000 | under 61 |" in said
    assert f"at the entropy of the documents: `{CHALLENGER}`." in said
    rival["sampled"] = suite_rows.out_of_reach(judge_ppl=59, entropy=3.5)
    assert "none of them." in page({"rivals-4096": suite_rows.row({"baseline": "", "rows": sides, "skipped": []})})


def test_a_judge_that_no_temperature_reaches_is_a_bound() -> None:
    dull = suite_rows.side("dull", 1, 256)
    dull["sampled"] = suite_rows.out_of_reach(judge_ppl=90, entropy=2.9)
    said = page({"steps": suite_rows.row({"baseline": "dull", "rows": [dull], "skipped": []})})
    assert "| over 90 | - |" in said


def test_a_page_without_rows_says_what_is_missing() -> None:
    said = page({})
    assert "Open: the verdict needs the row rivals-1024" in said
    assert "## Sweeps" not in said


def test_pictures_are_drawn_of_what_there_is_and_the_same_each_time(tmp_path: Path) -> None:
    assert draw({}, tmp_path) == []
    rows = suite_rows.whole() | {"modes": suite_rows.length(256)}
    drawn = draw(rows, tmp_path)
    assert sorted(path.name for path in drawn) == ["frontier.svg", "length-cost.svg", "length-memory.svg"]
    first = [path.read_bytes() for path in drawn]
    assert [path.read_bytes() for path in draw(rows, tmp_path)] == first
    assert "N^2.00" in (tmp_path / "length-cost.svg").read_text()
