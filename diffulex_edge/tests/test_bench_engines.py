"""`bench --sweeps engine`: one plan in programs that are made on the spot, beside the model itself."""

from __future__ import annotations

import pytest

from diffulex_edge import api
from diffulex_edge.bench.measure import BenchConfig, benchmark
from diffulex_edge.bench.variants import PROGRAMS
from diffulex_edge.tests.conftest import TinyRun

pytestmark = pytest.mark.export


def test_programs_write_as_many_tokens_as_well_as_the_model(tiny_run: TinyRun) -> None:
    config = BenchConfig(
        modes=("block", "block_frozen"),
        sweeps=("engine",),
        prompts=("आज घर",),
        max_new_tokens=40,
        block_size=16,
        steps=4,
        ignore_eos=True,
        runs_per_prompt=1,
        quality_documents=6,
        quality_window=32,
        judge_data=tiny_run.data,
    )
    result = benchmark(*api.load(tiny_run.run), config)
    rows = {row["name"]: row for row in result["rows"]}
    assert not result["skipped"]
    assert list(rows) == ["block", "block_frozen", *(f"block_frozen, {name}" for name in PROGRAMS)]
    own = rows["block_frozen"]
    for name, number_type in PROGRAMS.items():
        row = rows[f"block_frozen, {name}"]
        assert (row["tokens_kept"], row["forwards"]) == (40, own["forwards"])
        assert row["number_type"] == number_type
        assert row["block_nelbo"] == pytest.approx(own["block_nelbo"], rel=1e-4 if number_type == "fp32" else 0.05)
