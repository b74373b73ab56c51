"""One suite over every denoiser: what model/base.py promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import NONE, Denoiser
from diffulex_edge.model.soft_exit import Thinned
from diffulex_edge.quant import SCHEMES, quantize
from diffulex_edge.tests import toys

DENOISERS: dict[str, Callable[[], Any]] = {
    "eco_hybrid": toys.eco,
    "eco_hybrid without local attention": lambda: toys.eco(local_attn_layers=()),
    "eco_hybrid that accumulates memory": lambda: toys.eco(memory_update="accumulate", memory_blocks=2),
    "eco_hybrid of two timescales": lambda: toys.eco(memory_timescales=(1.0, 0.1)),
    "eco_hybrid that carries its slots": lambda: toys.eco(latent_self_cond=True),
    "transformer": toys.backup,
    "block-causal transformer": lambda: toys.backup(block_length=8),
    "causal transformer": lambda: toys.backup(block_length=1),
    "eco_hybrid in int8": lambda: quantize(toys.eco(), SCHEMES["weight_only_int8"]),
    "block-causal transformer in int8": lambda: quantize(toys.backup(block_length=8), SCHEMES["weight_only_int8"]),
    "eco_hybrid in int8 throughout": lambda: quantize(toys.eco(), SCHEMES["dynamic_int8"]),
}
KINDS = [(name, kind) for name, make in DENOISERS.items() for kind in make().spec.contexts]


@pytest.fixture(params=DENOISERS, ids=str)
def denoiser(request: pytest.FixtureRequest) -> Any:
    return DENOISERS[request.param]()


def begun(denoiser: Any, kind: str, text: torch.Tensor, block: int = 8, first: torch.Tensor | None = None) -> Any:
    """The context after reading text in blocks."""
    context = denoiser.begin(kind, len(text), text.shape[1] + 3 * block, first)
    for start in range(0, text.shape[1], block):
        _, context = denoiser(text[:, start : start + block], context, rows=NONE)
    return context


def test_it_is_a_denoiser(denoiser: Any) -> None:
    assert isinstance(denoiser, Denoiser)


def test_rows_are_the_named_positions_in_row_major_order(denoiser: Any) -> None:
    x = toys.ids(2, 16)
    rows = torch.rand(2, 16, generator=torch.Generator().manual_seed(1)) < 0.4
    torch.testing.assert_close(denoiser(x, rows=rows)[0], denoiser(x)[0][rows])


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_denoising_leaves_the_context_alone(name: str, kind: str) -> None:
    denoiser = DENOISERS[name]()
    context = begun(denoiser, kind, toys.ids(2, 16))
    before, _ = denoiser(toys.ids(2, 8, seed=1), context)
    denoiser(toys.ids(2, 8, seed=2), context, rows=torch.ones(2, 8, dtype=torch.bool))
    torch.testing.assert_close(denoiser(toys.ids(2, 8, seed=1), context)[0], before, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_what_was_read_before_the_block_changes_its_logits(name: str, kind: str) -> None:
    denoiser, block = DENOISERS[name](), toys.ids(1, 8, seed=5)
    a, _ = denoiser(block, begun(denoiser, kind, toys.ids(1, 16, seed=1)))
    b, _ = denoiser(block, begun(denoiser, kind, toys.ids(1, 16, seed=2)))
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_row_padded_on_the_left_decodes_as_it_does_alone(name: str, kind: str) -> None:
    denoiser = DENOISERS[name]()
    text, block = toys.ids(2, 24), toys.ids(2, 8, seed=3)
    text[0, :8] = 0
    together, _ = denoiser(block, begun(denoiser, kind, text, first=torch.tensor([8, 0])))
    for row, start in enumerate((8, 0)):
        alone, _ = denoiser(block[row : row + 1], begun(denoiser, kind, text[row : row + 1, start:]))
        torch.testing.assert_close(together[row], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_rows_of_a_batch_do_not_see_each_other(name: str, kind: str) -> None:
    denoiser, text, block = DENOISERS[name](), toys.ids(2, 16), toys.ids(2, 8, seed=3)
    other = text.clone()
    other[1] = toys.ids(1, 16, seed=9)[0]
    a, _ = denoiser(block, begun(denoiser, kind, text))
    b, _ = denoiser(block, begun(denoiser, kind, other))
    torch.testing.assert_close(a[0], b[0], rtol=1e-6, atol=1e-6)
    assert (a[1] - b[1]).abs().max() > 1e-3


def test_depth_is_honoured_by_denoise_and_refused_beyond_the_layers(denoiser: Any) -> None:
    x = toys.ids(1, 8)
    outputs = [denoiser(x, depth=depth)[0] for depth in (1, 2, 3)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    torch.testing.assert_close(outputs[2], denoiser(x)[0])
    for depth in (0, 4):
        with pytest.raises(UsageError, match="depth"):
            denoiser(x, depth=depth)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_an_exit_that_leaves_nothing_is_a_depth_and_one_that_leaves_all_is_none(name: str, kind: str) -> None:
    denoiser, block = DENOISERS[name](), toys.ids(2, 8, seed=3)
    context = begun(denoiser, kind, toys.ids(2, 16))
    _, context = denoiser(block, context)  # caches of a canvas read all layers at their first look
    whole, _ = denoiser(block, context)
    assert torch.equal(denoiser(block, context, exit=Thinned(1, 1.0))[0], whole)
    shallow, _ = denoiser(block, context, depth=2)
    assert (shallow - whole).abs().max() > 1e-3
    assert torch.equal(denoiser(block, context, exit=Thinned(1, 0.0))[0], shallow)


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, k in KINDS if "int8" not in n])
def test_an_exit_thins_the_layers_behind_it(name: str, kind: str) -> None:
    """The truth: the same model with the same channels of those layers cut off."""
    denoiser, block = DENOISERS[name](), toys.ids(2, 8, seed=3)
    context = begun(denoiser, kind, toys.ids(2, 16))
    _, context = denoiser(block, context)
    half, _ = denoiser(block, context, exit=Thinned(0, 0.5))
    for layer in denoiser.layers[1:]:
        layer.ff.down.weight.data[:, layer.ff.down.weight.shape[1] // 2 :] = 0
    torch.testing.assert_close(half, denoiser(block, context)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_remembering_is_always_whole(name: str, kind: str) -> None:
    denoiser, x, block = DENOISERS[name](), toys.ids(1, 8), toys.ids(1, 8, seed=1)
    whole, _ = denoiser(block, begun(denoiser, kind, x))
    context = denoiser.begin(kind, 1, 32)
    logits, context = denoiser(x, context, rows=NONE, depth=1, exit=Thinned(0, 0.0))
    assert logits.shape == (0, 48)
    torch.testing.assert_close(denoiser(block, context)[0], whole)


def test_a_canvas_sees_what_lies_ahead_and_full_does_not() -> None:
    denoiser = toys.eco()
    x, block = toys.ids(1, 8), toys.ids(1, 8, seed=1)
    canvas, full = begun(denoiser, "canvas", x), begun(denoiser, "full", x)
    a, _ = denoiser(block, canvas.facing(toys.ids(1, 8, seed=2)))
    b, _ = denoiser(block, canvas.facing(toys.ids(1, 8, seed=3)))
    assert (a - b).abs().max() > 1e-3
    c, _ = denoiser(block, full.facing(toys.ids(1, 8, seed=2)))
    torch.testing.assert_close(c, denoiser(block, full)[0])


def test_a_kind_that_the_model_has_not_is_refused(denoiser: Any) -> None:
    with pytest.raises(UsageError, match="'slate'"):
        denoiser.begin("slate", 1, 8)


def test_a_timed_model_depends_on_the_noise_level_and_asks_for_it() -> None:
    for denoiser in (toys.eco(timesteps=8), toys.backup(timesteps=8)):
        x = toys.ids(1, 8)
        early, _ = denoiser(x, t=torch.tensor([1.0]))
        late, _ = denoiser(x, t=torch.tensor([0.25]))
        assert (early - late).abs().max() > 1e-3
        with pytest.raises(UsageError, match="noise level"):
            denoiser(x)
