"""The open families equal the transformers library's own classes, to the last digit; and wrong conventions do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffulex_edge
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import NONE
from diffulex_edge.model.layers import attend
from diffulex_edge.tests import family_toys as toys

pytest.importorskip("transformers", reason="the parity tests compare with the transformers library")
LENGTH = 24


@pytest.fixture(params=list(toys.FAMILIES))
def family(request: pytest.FixtureRequest) -> toys.Family:
    return toys.FAMILIES[request.param]


def opened(family: toys.Family, folder: Path, **more: Any) -> tuple[Any, Any]:
    """Our denoiser of a folder, and the class whose weights are in it."""
    model = toys.hub_model(family)
    denoiser, _ = diffulex_edge.load(toys.write_folder(folder, family, model, **more))
    return denoiser, model


@torch.no_grad()
def theirs(family: toys.Family, model: Any, ids: Tensor) -> Tensor:
    """Logits (B, L, V) of the class that speak about each token."""
    mask = toys.mask_of(family.block_length, ids.shape[1])
    return family.shift(model(ids, attention_mask=mask, use_cache=False).logits)


def text(rows: int = 2) -> Tensor:
    return torch.randint(0, toys.EOS, (rows, LENGTH), generator=torch.Generator().manual_seed(1))


def test_logits_equal_those_of_the_transformers_class(family: toys.Family, tmp_path: Path) -> None:
    denoiser, model = opened(family, tmp_path)
    ids = text()
    ids[:, ::3] = toys.MASK
    expected = theirs(family, model, ids)
    mine = _all_logits(denoiser, ids)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-4)


def _all_logits(denoiser: Any, ids: Tensor) -> Tensor:
    """Of every token, each in its own block where there are blocks."""
    size = denoiser.spec.block_length
    if size is None:
        return denoiser(ids)[0]
    context, found = denoiser.begin("kv", len(ids), ids.shape[1]), []
    for block in ids.split(size, 1):
        found.append(denoiser(block, context)[0])
        context = denoiser(block, context, rows=NONE)[1]
    return torch.cat(found, 1)


@pytest.mark.parametrize("wrong", ["shift", "mask", "theta"])
def test_a_wrong_convention_is_far_off(family: toys.Family, wrong: str, tmp_path: Path) -> None:
    denoiser, model = opened(family, tmp_path)
    ids = text()
    expected = theirs(family, model, ids)
    if wrong == "shift":
        bad = expected.roll(1, 1)
    elif wrong == "mask":
        bad = theirs(replace(family, block_length=1), model, ids)  # causal
    else:
        denoiser.facts = replace(denoiser.facts, rope_theta=100.0)
        bad = _all_logits(denoiser, ids)
    assert (bad - expected).abs().max() > expected.std() / 2


def test_shards_and_one_file_give_the_same_model(family: toys.Family, tmp_path: Path) -> None:
    one, _ = opened(family, tmp_path / "one")
    many, _ = opened(family, tmp_path / "many", shards=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), many.parameters(), strict=True))


def test_bf16_stays_bf16(family: toys.Family, tmp_path: Path) -> None:
    denoiser, _ = opened(family, tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in denoiser.parameters()} == {torch.bfloat16}
    logits, _ = denoiser(text())
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


@pytest.mark.parametrize("kind", ["dual", "prefix"])
@pytest.mark.parametrize("name", ["llada", "dream"])
def test_a_cache_of_no_text_at_all_is_looked_at_like_any_other(name: str, kind: str, tmp_path: Path) -> None:
    denoiser, _ = opened(toys.FAMILIES[name], tmp_path)
    ids = text()
    exact, cached = (denoiser.begin(each, 2, LENGTH).facing(ids[:, 8:]) for each in ("canvas", kind))
    expected, _ = denoiser(ids[:, :8], exact)
    for _ in range(2):
        looked, seen = denoiser(ids[:, :8], cached)
        torch.testing.assert_close(looked, expected, rtol=0, atol=1e-5)
        cached = cached.refresh(seen, None)
    with pytest.raises(UsageError, match="do not fit"):
        denoiser(ids[:, :9], cached)


@pytest.mark.parametrize("rows", [1, 10])
def test_long_texts_are_attended_to_in_pieces_with_the_same_result(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, heads, 10, 8, generator=generator) for heads in (4, 2))
    mask = torch.rand(2, 1, rows, 10, generator=generator) < 0.7
    mask[..., 0] = True
    masks = (None, mask)
    whole = [attend(q, k, k, each) for each in masks]
    monkeypatch.setattr("diffulex_edge.model.layers.QUERIES", 3)
    for each, expected in zip(masks, whole, strict=True):
        torch.testing.assert_close(attend(q, k, k, each), expected)


@pytest.mark.parametrize("kind", ["dual", "prefix"])
@pytest.mark.parametrize("name", ["llada", "dream"])
def test_the_first_look_with_a_cache_is_the_exact_one(name: str, kind: str, tmp_path: Path) -> None:
    denoiser, _ = opened(toys.FAMILIES[name], tmp_path)
    ids = text()
    exact = denoiser.begin("canvas", 2, LENGTH)
    cached = denoiser.begin(kind, 2, LENGTH)
    for piece in (ids[:, :8], ids[:, 8:12]):
        exact, cached = (denoiser(piece, context, rows=NONE)[1] for context in (exact, cached))
    exact, cached = (context.facing(ids[:, 16:]) for context in (exact, cached))
    block = ids[:, 12:16].clone()
    block[:, 1:3] = toys.MASK
    first, seen = denoiser(block, cached)
    torch.testing.assert_close(first, denoiser(block, exact)[0], rtol=0, atol=1e-5)
    again, _ = denoiser(block, cached.refresh(seen, None))  # nothing changed since, so nothing is stale
    torch.testing.assert_close(again, first, rtol=0, atol=1e-5)
    block[:, 1] = 7
    stale, _ = denoiser(block, cached.refresh(seen, None))
    true, _ = denoiser(block, exact)
    assert not torch.equal(stale, true)
    assert (stale - true).abs().mean() < (first - true).abs().mean()  # approximate, and closer than not looking again


@pytest.mark.parametrize("kind", ["dual", "prefix"])
def test_a_cache_is_of_all_layers_and_is_made_anew_for_other_text_ahead(kind: str, tmp_path: Path) -> None:
    denoiser, _ = opened(toys.FAMILIES["llada"], tmp_path)
    ids = text()
    start = denoiser(ids[:, :8], denoiser.begin(kind, 2, LENGTH), rows=NONE)[1]
    exact = denoiser(ids[:, :8], denoiser.begin("canvas", 2, LENGTH), rows=NONE)[1]
    block, one, other = ids[:, 8:16], ids[:, 16:], ids[:, 16:].flip(1)
    seen = denoiser(block, start.facing(one), depth=1)[1]  # shallow, and yet all layers are remembered
    torch.testing.assert_close(denoiser(block, seen)[0], denoiser(block, exact.facing(one))[0], rtol=0, atol=1e-5)
    again, _ = denoiser(block, seen.facing(other))
    torch.testing.assert_close(again, denoiser(block, exact.facing(other))[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["kv", "full"])
def test_a_row_that_begins_with_the_block_is_not_begun_by_the_padding_before_it(kind: str, tmp_path: Path) -> None:
    denoiser, _ = opened(toys.FAMILIES["fast_dllm_v2"], tmp_path)
    context = denoiser.begin(kind, 2, LENGTH, torch.tensor([0, 8]))
    context = denoiser(text()[:, :8], context, rows=NONE)[1]
    block = context.open(torch.full((2, 8), toys.MASK))
    assert (block == toys.MASK).sum(1).tolist() == [7, 8]


def test_a_block_that_the_cache_has_no_room_for_is_refused(tmp_path: Path) -> None:
    denoiser, _ = opened(toys.FAMILIES["sdar"], tmp_path)
    with pytest.raises(UsageError, match="do not fit"):
        denoiser(text()[:, :8], denoiser.begin("kv", 2, 4))
