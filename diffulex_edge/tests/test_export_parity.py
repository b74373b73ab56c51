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


@pytest.mark.parametrize("name", ["eco", "llada"])
def test_an_integer_program_equals_the_eager_integer_model(name: str) -> None:
    """A value between two integers may go either way, on another processor another one, and all that follows with it.

    So the looks that none went astray in are equal, and no look is off by as much as rounding itself is.
    """
    denoiser = PteDenoiser(toys.program(name, "dynamic_int8").path, threads=1)
    made = quantize(toys.model(name), find_scheme("dynamic_int8"))
    with torch.no_grad():
        kind = next(iter(denoiser.kinds))
        models = (denoiser, made, toys.model(name))
        ours, theirs, whole = ([*toys.looks(each, kind, 0), *toys.looks(each, kind, 1)] for each in models)
    gaps = [toys.gap([a], [b]) for a, b in zip(ours, theirs, strict=True)]
    assert min(gaps) < 1e-5
    assert max(gaps) < toys.gap(theirs, whole)
    assert toys.program(name, "dynamic_int8").size_bytes < toys.program(name).size_bytes
