"""`bench --sedac`: every kernel and way is measured, over the whole feed-forward, and the table says all of it."""

from __future__ import annotations

import pytest
from rich.console import Console

from diffulex_edge.bench.sedac import SedacBenchConfig, benchmark_sedac
from diffulex_edge.bench.sedac_report import sedac_bench_table
from diffulex_edge.errors import UsageError
from diffulex_edge.sedac.native import core
from diffulex_edge.tests import toys


def test_kernels_and_feed_forwards_are_measured_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    config = SedacBenchConfig(cascade_tokens=(1, 64), ffn_tokens=(32,), ffn_shapes=((32, 64),), sedac_rounds=2)
    result = benchmark_sedac(toys.eco(), config)
    kernels = {"NumPy", "torch"} | ({"Rust"} if core() else set())
    assert [row["tokens"] for row in result["cascade"]] == [1, 64]
    assert all(set(row["us"]) == kernels and min(row["us"].values()) > 0 for row in result["cascade"])
    shapes = {(row["width"], row["channels"]) for row in result["feed_forward"]}
    model = toys.eco().config
    assert shapes == {(32, 64), (model.d_model, model.d_ff)}
    assert all(min(row["of_whole"].values()) > 0 and row["whole_ms"] > 0 for row in result["feed_forward"])
    console = Console(width=200)
    console.print(sedac_bench_table(result))
    said = capsys.readouterr().out
    assert all(kernel in said for kernel in kernels) and "mask 50 %" in said and "of a step" in said


def test_nonsense_is_refused() -> None:
    for wrong in ({"ffn_type": "int3"}, {"sedac_rounds": 0}, {"ffn_tokens": (0,)}):
        with pytest.raises(UsageError):
            SedacBenchConfig(**wrong)  # type: ignore[arg-type]
