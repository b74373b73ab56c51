"""The page of SEDAC's figures is what the results say, and nothing else."""

from __future__ import annotations

from diffulex_edge.files import read_json
from diffulex_edge.suite.sedac_page import sedac_page
from diffulex_edge.tests.tree import ROOT


def test_the_page_is_made_of_the_results() -> None:
    bench, report = (read_json(ROOT / f"docs/results/sedac/{name}.json") for name in ("bench", "report"))
    page = sedac_page(bench, report)
    assert (ROOT / "docs/sedac.md").read_text() == page, "run `make docs`"
    report["curve"][1]["speed"] = 7.77
    bench["feed_forward"][0]["of_whole"]["keep 50 %"] = 8.88
    moved = sedac_page(bench, report)
    assert "7.77x" in moved and "8.88" in moved and "7.77x" not in page
