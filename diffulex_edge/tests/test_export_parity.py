"""A program gives what the eager model gives: every model, every method, along a text."""

from __future__ import annotations

import pytest
import torch

from diffulex_edge.quant import find_scheme
from diffulex_edge.quant.quantizer import quantize
from diffulex_edge.runtime.pte import PteDenoiser
from diffulex_edge.tests import export_toys as toys

pytestmark = pytest.mark.export


@pytest.mark.parametrize("name", toys.KINDS)
def test_a_program_equals_eager_over_three_blocks(name: str) -> None:
    denoiser = PteDenoiser(toys.program(name).path, threads=1)
    with torch.no_grad():
        for kind in denoiser.kinds:
            for seed in range(2):  # the second text begins where the first left its memory
                theirs = toys.looks(toys.model(name), kind, seed)
                assert toys.gap(toys.looks(denoiser, kind, seed), theirs) < 1e-4


@pytest.mark.parametrize(("name", "tolerance"), [("eco", 1e-3), ("llada", 1e-5)])
def test_an_integer_program_equals_the_eager_integer_model(name: str, tolerance: float) -> None:
    denoiser = PteDenoiser(toys.program(name, "dynamic_int8").path, threads=1)
    made = quantize(toys.model(name), find_scheme("dynamic_int8"))
    with torch.no_grad():
        kind = next(iter(denoiser.kinds))
        ours, theirs, whole = (toys.looks(model, kind) for model in (denoiser, made, toys.model(name)))
    assert toys.gap(ours, theirs) < tolerance  # a value between two integers may go either way
    assert toys.gap(theirs, whole) > 10 * toys.gap(ours, theirs)
    assert toys.program(name, "dynamic_int8").size_bytes < toys.program(name).size_bytes
