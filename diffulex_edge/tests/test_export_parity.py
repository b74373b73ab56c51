"""A program gives what the eager model gives: every model, every method, along a text."""

from __future__ import annotations

import pytest
import torch

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
