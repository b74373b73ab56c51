"""A program gives what the eager model gives: every model, every method, along a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from diffulex_edge.errors import UsageError
from diffulex_edge.export import export_model
from diffulex_edge.quant import DiffuLexQuantizer, calibrating, find_scheme
from diffulex_edge.quant.quantizer import quantize
from diffulex_edge.runtime.pte import PteDenoiser
from diffulex_edge.tests import export_toys as toys

pytestmark = pytest.mark.export


@pytest.mark.parametrize("name", toys.KINDS)
def test_a_program_equals_eager_over_three_blocks(name: str) -> None:
    denoiser = PteDenoiser(toys.program(name).path, threads=1)
    with torch.no_grad():
        for kind in denoiser.kinds:
            for length in ((0, toys.BLOCKS), (1, toys.BLOCKS + 1)):  # the second begins where the first left its memory
                theirs = toys.looks(toys.model(name), kind, *length)
                assert toys.gap(toys.looks(denoiser, kind, *length), theirs) < 1e-4


def is_the_integer_model(denoiser: PteDenoiser, made: Any, name: str) -> None:
    """A value between two integers may go either way, on another processor another one, and all that follows with it.

    So the looks that none went astray in are equal, and no look is off by as much as rounding itself is.
    """
    with torch.no_grad():
        kind = next(iter(denoiser.kinds))
        models = (denoiser, made, toys.model(name))
        ours, theirs, whole = ([*toys.looks(each, kind, 0), *toys.looks(each, kind, 1)] for each in models)
    gaps = [toys.gap([a], [b]) for a, b in zip(ours, theirs, strict=True)]
    assert min(gaps) < 1e-5
    assert max(gaps) < toys.gap(theirs, whole)


@pytest.mark.parametrize("name", ["eco", "sdar", "llada"])
def test_an_integer_program_equals_the_eager_integer_model(name: str) -> None:
    denoiser = PteDenoiser(toys.program(name, "dynamic_int8").path, threads=1)
    is_the_integer_model(denoiser, quantize(toys.model(name), find_scheme("dynamic_int8")), name)
    assert toys.program(name, "dynamic_int8").size_bytes < toys.program(name).size_bytes


def test_weights_that_are_integers_alone_become_floats_or_are_refused(tmp_path: Path) -> None:
    """XNNPACK has no product of floats and integer weights, and gives other numbers in its place."""
    model, shapes = toys.model("eco"), dict[str, Any](block_size=toys.BLOCK, output_path=tmp_path / "x.pte")
    made = DiffuLexQuantizer().convert(model)  # the head's activations keep their precision
    program = export_model(made, **shapes)
    is_the_integer_model(PteDenoiser(program.path, threads=1), made, "eco")
    with pytest.raises(UsageError, match="only this model's weights are integers"):
        export_model(quantize(model, find_scheme("weight_only_int8")), **shapes)
    with pytest.raises(UsageError, match="openvino_ir takes models in floating point"):
        export_model(made, backend="openvino_ir", **shapes)


@pytest.mark.parametrize("name", ["eco", "llada"])
def test_a_model_of_static_ranges_is_exported_as_it_was_written(name: str, tmp_path: Path) -> None:
    model = toys.model(name)
    with calibrating(model) as seen, torch.no_grad():
        for kind in model.spec.contexts:
            toys.looks(model, kind)
    made = quantize(model, find_scheme("static_int8"), seen)
    shapes: dict[str, Any] = {"block_size": toys.BLOCK, "max_length": 4 * toys.BLOCK}
    program = export_model(made, output_path=tmp_path / "static.pte", **shapes)
    is_the_integer_model(PteDenoiser(program.path, threads=1), made, name)
