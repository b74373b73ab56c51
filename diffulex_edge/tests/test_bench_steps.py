"""A step is timed over its floor, beside the class with the same weights; a compiled step is the same step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.config as dynamo

from diffulex_edge.api import load
from diffulex_edge.bench.report import steps_table
from diffulex_edge.bench.steps import ENGINES, StepBenchConfig, benchmark_steps
from diffulex_edge.bench.twins import twin_step
from diffulex_edge.errors import UsageError
from diffulex_edge.model.compiled import INDUCTOR, compiled
from diffulex_edge.model.stack import run
from diffulex_edge.runtime.decode import Finished, decode
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.tests import family_toys, toys


def opened(name: str, folder: Path) -> Any:
    family = family_toys.FAMILIES[name]
    return load(family_toys.write_folder(folder, family, family_toys.hub_model(family)))[0]


@pytest.mark.parametrize("name", ["sdar", "llada"])
def test_the_floor_counts_the_products_of_every_layer_and_of_the_head(name: str, tmp_path: Path) -> None:
    denoiser = opened(name, tmp_path)
    length = denoiser.spec.block_length or 8
    config = StepBenchConfig(
        lengths=(length,), context_length=32, step_rounds=2, gemm_sizes=(64,), number_types=("fp32",)
    )
    result = benchmark_steps(denoiser, config)
    row = result["rows"][0]
    assert set(row["ms"]) == {"eager", "twin"}
    assert row["over_floor"]["eager"] == pytest.approx(row["ms"]["eager"] / row["floor_ms"])
    weights = sum(p.numel() for p in denoiser.layers.parameters() if p.ndim == 2)
    read_again = length + denoiser.facts.shift.behind
    least = 2 * (read_again * weights + length * denoiser.spec.vocab_size * 48)
    assert least <= row["gflop"] * 1e9 <= 1.3 * least  # the rest is attention
    assert steps_table(result).row_count == 1


def test_the_twin_gives_our_logits(tmp_path: Path) -> None:
    denoiser = opened("sdar", tmp_path)
    context, block = (torch.randint(0, 256, (1, 4), generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    sizes = sys.modules[type(denoiser).__module__].sizes(denoiser.config)  # type: ignore[attr-defined]
    mine: Any = ENGINES["eager"](denoiser, context, block)()
    torch.testing.assert_close(mine, twin_step(denoiser, sizes, context, block)()[0], rtol=0, atol=1e-4)


def test_a_model_without_a_twin_says_so() -> None:
    config = StepBenchConfig(lengths=(8,), context_length=8, step_rounds=1, gemm_sizes=(64,), number_types=("fp32",))
    with pytest.raises(UsageError, match="no twin"):
        benchmark_steps(toys.eco(vocab_size=256), config)


@pytest.mark.slow
def test_a_compiled_step_decodes_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INDUCTOR, "max_autotune", False)  # which kernel is the fastest is the other tests' affair
    for denoiser, kind in ((toys.backup(block_length=8), "kv"), (toys.backup(), "dual"), (toys.eco(), "memory")):
        plan = Plan(context=kind, block_size=8, steps=4, max_new_tokens=24)
        ends = [list(decode(each, [[*range(5, 14)]], plan))[-1] for each in (denoiser, compiled(denoiser))]
        assert isinstance(ends[0], Finished)
        assert isinstance(ends[1], Finished)
        assert ends[0].tokens == ends[1].tokens


def test_what_is_another_length_at_each_block_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor fails on the windows of local attention where their number is a symbol."""
    fast = compiled(toys.eco())
    asked: list[int] = []

    def counted(*call: Any) -> Any:
        asked.append(call[1].tokens.shape[1])
        return run(*call)

    monkeypatch.setattr(fast, "run_layers", counted)
    list(decode(fast, [[*range(5, 14)]], Plan(context="full", block_size=8, steps=2, max_new_tokens=16)))
    assert not asked
    list(decode(fast, [[*range(5, 14)]], Plan(context="memory", block_size=8, steps=2, max_new_tokens=8)))
    assert set(asked) == {8}


@pytest.mark.slow
def test_a_second_compiled_model_and_a_second_depth_are_compiled_as_well() -> None:
    block = toys.ids(1, 8)
    with torch.inference_mode(), dynamo.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        for seed in (0, 1):
            denoiser = toys.randomise(toys.backup(), seed)
            fast = compiled(denoiser)
            for depth in (1, 2):
                torch.testing.assert_close(fast(block, depth=depth)[0], denoiser(block, depth=depth)[0])


@pytest.mark.slow
def test_the_products_of_a_compiled_step_have_weights_of_their_own() -> None:
    """Packed ones: as inputs of the graph they could not be."""
    denoiser: Any = toys.randomise(toys.backup(), 0)
    block = toys.ids(1, 8)
    with torch.inference_mode():
        fast = compiled(denoiser)
        before = fast(block)[0]
        for layer in denoiser.layers:
            layer.qkv.weight.zero_()
            layer.ff.gate_up.weight.zero_()
        torch.testing.assert_close(fast(block)[0], before)
        assert not torch.allclose(denoiser(block)[0], before)
