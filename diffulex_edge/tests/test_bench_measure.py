"""`bench`: runs in turn, only kept tokens count, speed comes with quality, and what cannot be run is said."""

import io
import itertools
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from diffulex_edge.bench.measure import BenchConfig, benchmark
from diffulex_edge.bench.report import bench_table, picture_format, plain, plot
from diffulex_edge.bench.rows import add_utility, depths
from diffulex_edge.bench.variants import fit
from diffulex_edge.diffusion.schedule import Cosine
from diffulex_edge.errors import UsageError
from diffulex_edge.model.eco_hybrid import EcoHybrid, EcoHybridConfig
from diffulex_edge.runtime.depth import LinearDepth
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.tests import toys
from diffulex_edge.tests.bench_toys import EOS, FIRST, MASK, VOCAB, Letters, Toy, always, uniform
from diffulex_edge.text.corpus import Document

DOCUMENTS = [Document("कम मक कमक " * 6, "a", "devanagari"), Document("ab ba aab " * 5, "b", "roman")]


def small(tmp_path, **changes) -> BenchConfig:
    values = {"prompts": ("कम", "ab a"), "max_new_tokens": 8, "steps": 2, "block_size": 4, "runs_per_prompt": 2}
    return BenchConfig(judge_data=tmp_path, quality_window=16, **{**values, **changes})


class Meter:
    """An energy source that gives 3 J a lap."""

    name = "three"

    def lap(self) -> float:
        return 3.0


def test_every_row_has_speed_cost_and_quality_and_the_result_is_json(tmp_path):
    result = benchmark(Toy(uniform), Letters(), small(tmp_path), DOCUMENTS, Meter())
    json.dumps(result, allow_nan=False)
    assert [row["name"] for row in result["rows"]] == ["full", "block"]
    for row in result["rows"]:
        assert row["block_nelbo"] == pytest.approx(2.3219, abs=1e-3)
        assert row["tokens_kept"] == 8
        assert row["latency_ms"]["p95"] >= row["latency_ms"]["p50"] > 0
        assert row["joules_per_token"] == pytest.approx(3 / 8)
        assert row["peak_rss_bytes"] > 1e7
        assert row["entropy"] is not None
        assert row["judge_ppl"] > 1
    assert result["rows"][0]["speed_ratio"] == {"value": 1, "low": 1, "high": 1}
    assert result["rows"][0]["utility"] == pytest.approx(1)
    assert "energy a token" in result["utility"]
    assert result["skipped"][0]["name"] == "block_frozen"
    assert "no context memory" in result["skipped"][0]["reason"]


def test_all_modes_show_as_many_tokens_a_step_unless_told_otherwise(tmp_path):
    equal = benchmark(Toy(uniform), Letters(), small(tmp_path), DOCUMENTS)
    assert [row["forwards"] for row in equal["rows"]] == [4, 4]
    assert [row["tokens_per_forward"] for row in equal["rows"]] == [2, 2]
    unequal = benchmark(Toy(uniform), Letters(), small(tmp_path, equal_tokens_per_step=False), DOCUMENTS)
    assert [row["tokens_per_forward"] for row in unequal["rows"]] == [4, 2]


@pytest.mark.parametrize(
    ("new", "block", "steps", "want"),
    [(128, 32, 8, 32), (100, 32, 8, 32), (32, 32, 8, 8), (512, 32, 8, 128), (16, 32, 8, 8)],
)
def test_full_takes_the_steps_of_all_blocks_together(new, block, steps, want):
    plan = Plan(max_new_tokens=new, block_size=block, steps=steps)
    assert fit("full", plan, equal_tokens_per_step=True, unit=block).steps == want
    assert fit("block", plan, equal_tokens_per_step=True, unit=block).steps == steps
    assert fit("full", plan, equal_tokens_per_step=False, unit=block).steps == steps


def test_tokens_behind_the_end_of_text_do_not_count(tmp_path):
    def ends_in_column_six(ids):
        logits = torch.zeros(*ids.shape, VOCAB).index_fill(2, torch.tensor([FIRST]), 5.0)
        logits[:, 6:, EOS] = 9.0
        return logits

    config = small(tmp_path, prompts=("कम",))
    result = benchmark(Toy(ends_in_column_six), Letters(), config, DOCUMENTS)
    assert [row["tokens_kept"] for row in result["rows"]] == [4, 4]  # columns 2 to 5
    forced = benchmark(Toy(ends_in_column_six), Letters(), small(tmp_path, prompts=("कम",), ignore_eos=True), DOCUMENTS)
    assert [row["tokens_kept"] for row in forced["rows"]] == [8, 8]


def test_a_model_that_writes_nothing_has_no_ratio_and_breaks_nothing(tmp_path):
    result = benchmark(Toy(always(EOS)), Letters(), small(tmp_path), DOCUMENTS)
    row = result["rows"][1]
    assert (row["tokens_kept"], row["tokens_per_s"], row["speed_ratio"]["value"], row["utility"]) == (0, 0, None, None)


def test_runs_are_interleaved(tmp_path):
    toy = Toy(uniform)
    config = small(tmp_path, warmup_runs=0, prompts=("कम",), runs_per_prompt=3)
    benchmark(toy, Letters(), config, DOCUMENTS)
    probes = [length for length, _ in itertools.groupby(length for _, length in toy.begun if length in (4, 8))]
    assert probes[:6] == [8, 4] * 3  # decode first asks for one block: 8 is full's, 4 is block's


def test_a_mode_whose_context_no_program_has_is_not_made_into_one(tmp_path):
    result = benchmark(Toy(uniform), Letters(), small(tmp_path, modes=("block",), sweeps=("engine",)), DOCUMENTS)
    [skipped] = result["skipped"]
    assert skipped["name"] == "block, programs"
    assert skipped["reason"] == "none has a context full; they have memory, kv, canvas"


def test_sweeps_name_their_variants_and_quantisation_that_is_not_installed_is_skipped(tmp_path):
    torch.manual_seed(0)
    config = EcoHybridConfig(
        vocab_size=VOCAB, mask_id=MASK, d_model=16, n_layers=3, n_heads=2, head_dim=8, d_ff=16, memory_slots=2
    )
    model = EcoHybrid(config).eval().requires_grad_(False)
    sweeps = ("steps", "block", "depth", "quant")
    bench = small(tmp_path, modes=("block_frozen",), sweeps=sweeps, runs_per_prompt=1, warmup_runs=1)
    result = benchmark(model, Letters(), bench, DOCUMENTS)
    names = [row["name"].removeprefix("block_frozen, ") for row in result["rows"]]
    assert names[:8] == [
        "block_frozen",
        "steps 4",
        "steps 6",
        "steps 8",
        "steps 12",
        "block 32",
        "block 64",
        "block 96",
    ]
    assert names[8:12] == ["min_decode_layers 0", "min_decode_layers 2", "fp32", "bf16"]
    skipped = {each["name"]: each["reason"] for each in result["skipped"]}
    assert skipped["min_decode_layers 4"] == "the model has 3 layers"
    assert ("int8" in names) != ("pip install" in skipped.get("int8", ""))
    kinds = {row["name"]: row["number_type"] for row in result["rows"]}
    assert kinds["block_frozen, bf16"] == "bf16"
    assert model.slots0.dtype == torch.float32  # the model itself is as it was
    assert all(row["block_nelbo"] is not None for row in result["rows"])


def test_a_variant_that_is_too_slow_is_left_out_and_named(tmp_path):
    with pytest.raises(UsageError, match="full: one run takes more than 0.0 s"):
        benchmark(Toy(uniform), Letters(), small(tmp_path, slowest_run=0.0), DOCUMENTS)
    with pytest.raises(UsageError, match="baseline='block_frozen'"):
        benchmark(Toy(uniform), Letters(), small(tmp_path, baseline="block_frozen"), DOCUMENTS)


def test_without_documents_the_quality_is_that_of_generated_text(tmp_path):
    result = benchmark(Toy(uniform), Letters(), small(tmp_path, modes=("block",), runs_per_prompt=1))
    assert "generated" in result["quality_text"]
    assert result["rows"][0]["block_nelbo"] is not None


def test_depth_of_the_bound_is_the_depth_of_the_step_with_that_noise():
    layers = depths(Plan(steps=4, depth=LinearDepth(2)), 32, 8)
    assert layers is not None
    assert layers(torch.tensor([1.0, 0.8, 0.7, 0.4, 0.05])).tolist() == [2, 2, 4, 6, 8]
    assert depths(Plan(steps=4), 32, 8) is None
    cosine = depths(Plan(steps=4, depth=LinearDepth(2), schedule=Cosine()), 32, 8)
    assert cosine is not None
    assert cosine(torch.tensor([1.0, 0.93, 0.92, 0.71, 0.7, 0.39, 0.38])).tolist() == [2, 2, 4, 4, 6, 6, 8]


def row(name: str, ms: float, size: float, joules: float | None, bits: float | None) -> dict:
    return {"name": name, "ms_per_token": ms, "peak_rss_bytes": size, "joules_per_token": joules, "block_nelbo": bits}


def test_utility_is_a_ratio_and_leaves_energy_out_unless_all_rows_have_it():
    rows = [row("a", 10, 100, 2, 2.0), row("b", 5, 100, 1, 3.0), row("c", 5, 50, 1, None)]
    add_utility(rows, "a")
    assert [each["utility"] for each in rows] == [1, pytest.approx(0.5 * 2 * 2), None]
    rows[2]["joules_per_token"] = None
    add_utility(rows, "a")
    assert rows[1]["utility"] == pytest.approx(0.5 * 2)


def test_the_table_prints_and_the_plot_is_drawn_or_refused_by_its_ending(tmp_path):
    result = benchmark(Toy(uniform), Letters(), small(tmp_path, runs_per_prompt=1), DOCUMENTS)
    console = Console(record=True, width=250, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(bench_table(result))
    text = console.export_text()
    assert "block_frozen" in text
    assert "skipped: the model has no context memory" in " ".join(text.split())
    pytest.importorskip("matplotlib")
    plot(result, tmp_path / "speed.svg")
    assert "<svg" in (tmp_path / "speed.svg").read_text()
    with pytest.raises(UsageError, match=r"speed\.doc"):
        plot(result, tmp_path / "speed.doc")


def test_plain_makes_json_of_what_json_has_not():
    found = plain({"a": float("nan"), "b": (1, float("inf")), 3: torch.tensor(2.5)})
    assert found == {"a": None, "b": [1, None], "3": 2.5}


@pytest.mark.parametrize(
    "change",
    [
        {"modes": ("half",)},
        {"sweeps": ("speed",)},
        {"steps": 0},
        {"prompts": ()},
        {"modes": ("full", "full")},
        {"seed": -1},
    ],
)
def test_nonsense_settings_are_refused(change):
    with pytest.raises(UsageError):
        BenchConfig(**change)


def test_a_context_is_a_mode_with_a_bound_of_its_own(tmp_path: Path) -> None:
    denoiser = toys.backup(vocab_size=VOCAB, mask_id=MASK)
    rows = benchmark(denoiser, Letters(), small(tmp_path, modes=("canvas", "dual", "prefix")), DOCUMENTS)["rows"]
    assert [row["name"] for row in rows] == ["canvas", "dual", "prefix"]
    assert len({row["block_nelbo"] for row in rows}) == 1  # the first look with a cache is exact


def test_no_figure_is_cut_in_a_narrow_terminal(tmp_path):
    table = bench_table(benchmark(Toy(uniform), Letters(), small(tmp_path), DOCUMENTS, Meter()))
    narrow, wide = io.StringIO(), io.StringIO()
    for width, file in ((20, narrow), (200, wide)):
        Console(width=width, file=file, soft_wrap=True).print(table)
    assert narrow.getvalue() == wide.getvalue()


def test_a_picture_that_cannot_be_drawn_is_told_before_the_work(tmp_path):
    assert picture_format(tmp_path / "new" / "a.SVG") == "svg"
    for path, said in ((tmp_path / "a.docx", "no picture format"), (tmp_path, "no picture format")):
        with pytest.raises(UsageError, match=said):
            picture_format(path)
    (tmp_path / "dir.svg").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        picture_format(tmp_path / "dir.svg")
