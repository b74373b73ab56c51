"""OpenVINO inside ExecuTorch: what it makes of each kind of context, in an environment that has an older OpenVINO."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.plan import plan_for
from diffulex_edge.runtime.pte import PteDenoiser
from diffulex_edge.tests import export_toys as toys

pytestmark = pytest.mark.openvino
BF16 = "bf16" in Path("/proc/cpuinfo").read_text()  # then OpenVINO computes in it, and nothing can tell it not to


@pytest.mark.parametrize("name", ["eco", "sdar", "llada"])
def test_a_program_for_the_delegate_equals_eager_over_three_blocks(name: str) -> None:
    program = toys.program(name, backend="openvino")
    assert all(set(counts) <= {"getitem"} for counts in program.outside.values())
    denoiser = PteDenoiser(program.path, threads=1)
    with torch.no_grad():
        for kind in denoiser.kinds:
            for seed in range(2):  # the second text begins where the first left its memory
                theirs = toys.looks(toys.model(name), kind, seed)
                assert toys.gap(toys.looks(denoiser, kind, seed), theirs) < (0.05 if BF16 else 1e-4)


@pytest.mark.skipif(BF16, reason="in bf16 a token may become another")
def test_it_writes_the_text_that_eager_writes() -> None:
    model, denoiser = toys.model("eco"), PteDenoiser(toys.program("eco", backend="openvino").path, threads=1)
    plan = plan_for(denoiser.spec, max_new_tokens=2 * toys.BLOCK, block_size=toys.BLOCK, steps=4, stop_ids=())
    prompts = [toys.text(model)[0, : toys.BLOCK].tolist()]
    assert finish(decode(denoiser, prompts, plan)).tokens == finish(decode(model, prompts, plan)).tokens
