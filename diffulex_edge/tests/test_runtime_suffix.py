"""Suffix dropout: what is read of the text ahead, that it stands where it stood, and that no given text is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import diffulex_edge
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import NONE
from diffulex_edge.runtime.guidance import Guided
from diffulex_edge.runtime.penalty import Penalised
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.suffix import SuffixDropout, WholeSuffix, choose_suffix
from diffulex_edge.tests import family_toys, toys
from diffulex_edge.tests.runtime_toys import MASK, Script, Tape, finish

NEAR = SuffixDropout(window=3, density=0.5, decay=6.0)
HIDDEN = torch.zeros(1, 40, dtype=torch.bool)


class Reading(Tape):
    """Says of each block how many columns ahead of it are read, and which."""

    told: ClassVar[list[tuple[list[list[int]], list[int]]]] = []

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Tape:
        assert at is not None
        self.told.append((ahead.tolist(), at.tolist()))
        return super().facing(ahead, at)


class Read(Script):
    def begin(self, *arguments: Any) -> Tape:
        tape, Reading.told = super().begin(*arguments), []
        return Reading(tape.ids, tape.first, tape.aligned)


def test_the_window_is_read_whole_and_behind_it_less_and_less() -> None:
    counts = torch.zeros(40)
    for seed in range(400):
        counts[NEAR(HIDDEN, seed)] += 1
    distance = torch.arange(1, 41)
    share = torch.where(distance <= 3, 1.0, 0.5 * torch.exp(-(((distance - 3) / 6.0) ** 2) / 2))
    assert (counts[:3] == 400).all()
    assert ((counts / 400 - share).abs() < 4 * (share * (1 - share) / 400).sqrt() + 1e-3).all()


def test_a_column_that_is_read_stays_read_as_blocks_draw_near_and_the_seed_alone_decides() -> None:
    for seed in range(20):
        far = {int(i) for i in NEAR(HIDDEN, seed)}
        near = {int(i) + 8 for i in NEAR(HIDDEN[:, 8:], seed)}
        assert {i for i in far if i >= 8} <= near
        assert torch.equal(NEAR(HIDDEN, seed), NEAR(HIDDEN, seed))
    assert len({tuple(NEAR(HIDDEN, seed).tolist()) for seed in range(20)}) > 10


def test_a_window_of_nothing_reads_nothing_and_no_number_means_all() -> None:
    assert not len(SuffixDropout(window=0, density=0.0)(HIDDEN, 0))
    assert choose_suffix(None) == WholeSuffix()
    assert len(choose_suffix(None)(HIDDEN, 0)) == 40
    assert choose_suffix(5) == SuffixDropout(window=5)


@pytest.mark.parametrize("wrong", [{"window": -1}, {"window": 1.5}, {"density": 1.1}, {"density": -0.1}, {"decay": 0}])
def test_nonsense_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        SuffixDropout(**wrong)


@pytest.mark.parametrize("kind", ["canvas", "dual", "prefix"])
def test_a_window_over_all_that_lies_ahead_changes_nothing(kind: str, tmp_path: Path) -> None:
    denoiser = llada(tmp_path)[0]
    plan = Plan(context=kind, block_size=4, steps=2, max_new_tokens=24)
    one, other = (finish(denoiser, [[5, 6, 7]], replace(plan, suffix=s)) for s in (WholeSuffix(), choose_suffix(24)))
    assert one == other
    few = finish(denoiser, [[5, 6, 7]], replace(plan, suffix=SuffixDropout(window=1, density=0.1)))
    assert few.tokens != one.tokens
    assert family_toys.MASK not in few.tokens[0]
    assert len(few.tokens[0]) == 24


def llada(folder: Path, name: str = "llada") -> tuple[Any, Any]:
    model = family_toys.hub_model(family_toys.FAMILIES[name], seed=3)
    return diffulex_edge.load(family_toys.write_folder(folder, family_toys.FAMILIES[name], model))[0], model


@pytest.mark.parametrize("first", [None, [0, 5]], ids=["whole rows", "a padded row"])
@pytest.mark.parametrize("kind", ["canvas", "dual", "prefix"])
@pytest.mark.parametrize("name", ["llada", "dream"])
@torch.no_grad()
def test_what_is_read_keeps_its_position(name: str, kind: str, first: list[int] | None, tmp_path: Path) -> None:
    """As the transformers library's class sees the whole text when no one attends to what was left out."""
    denoiser, model = llada(tmp_path, name)
    ids, stop, at = toys.ids(2, 40, vocab_size=250), 20, torch.tensor([0, 1, 4, 11, 12, 19])
    seen = torch.zeros(2, 40, dtype=torch.bool)
    seen[:, :stop] = torch.arange(stop) >= torch.tensor(first or [0, 0])[:, None]
    seen[:, stop + at] = True
    hidden = torch.zeros(2, 1, 40, 40).masked_fill(~(seen[:, None, None] | torch.eye(40).bool()), -1e9)
    theirs = family_toys.FAMILIES[name].shift(model(ids, attention_mask=hidden, use_cache=False).logits)[:, 12:20]
    context = denoiser.begin(kind, 2, 40, None if first is None else torch.tensor(first))
    _, context = denoiser(ids[:, :12], context, rows=NONE)
    context = context.facing(ids[:, stop + at], at)
    ours, after = denoiser(ids[:, 12:20], context)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)
    again, _ = denoiser(ids[:, 12:20], context.refresh(after, None))
    torch.testing.assert_close(again, ours, rtol=0, atol=1e-5)
    wrong, _ = denoiser(ids[:, 12:20], context.facing(ids[:, stop + at]))
    assert (wrong - theirs).abs().max() > 1e-2


def test_text_that_was_given_is_read_in_every_row_and_stays() -> None:
    rows = [[5, *[MASK] * 11, 6, *[MASK] * 6, 7], [5, *[MASK] * 19]]
    plan = Plan(context="canvas", block_size=4, steps=2, suffix=SuffixDropout(window=1, density=0.0))
    finished = finish(Read(), rows, plan)
    for block, (ahead, at) in enumerate(Reading.told):
        behind = 1 + 4 * (block + 1)  # the first block begins at the first mask
        wanted = sorted({behind, *(c for c in (12, 19) if c >= behind)} & set(range(20)))
        assert [behind + i for i in at] == wanted
        given = {12: 6, 19: 7}
        assert ahead[0] == [given.get(c, MASK) for c in wanted]
    assert (finished.texts[0][0], finished.texts[0][12], finished.texts[0][19]) == (5, 6, 7)
    assert all(MASK not in text for text in finished.texts)


def test_fewer_tokens_are_read() -> None:
    plan = Plan(context="canvas", block_size=4, steps=2, max_new_tokens=40)
    counts = []
    for suffix in (WholeSuffix(), NEAR, SuffixDropout(window=3, density=0.0)):
        finished = finish(Read(), [[5]], replace(plan, suffix=suffix))
        counts.append(sum(len(at) for _, at in Reading.told))
        assert MASK not in finished.tokens[0]
    assert counts[0] == sum(range(0, 40, 4))
    assert counts[2] == 9 * 3
    assert counts[0] > counts[1] > counts[2]


def test_a_batch_reads_of_each_row_what_it_reads_alone(tmp_path: Path) -> None:
    denoiser = llada(tmp_path)[0]
    prompts = [[5, 6, 7], [8] * 9, [9]]
    plan = Plan(context="canvas", block_size=4, steps=2, max_new_tokens=20, suffix=NEAR)
    alone = [finish(denoiser, [prompt], plan).tokens[0] for prompt in prompts]
    assert finish(denoiser, prompts, plan).tokens == alone


@pytest.mark.parametrize("wrap", [lambda d: Guided(d, 1.0), lambda d: Penalised(d, 1.5)], ids=["guided", "penalised"])
def test_a_denoiser_around_a_denoiser_passes_it_on(wrap: Any) -> None:
    finish(wrap(Read()), [[5, 6]], Plan(context="canvas", block_size=4, steps=2, max_new_tokens=20, suffix=NEAR))
    assert sum(len(at) for _, at in Reading.told) < sum(range(0, 20, 4))
    assert all(at == NEAR(torch.zeros(1, 16 - 4 * i).bool(), 0).tolist() for i, (_, at) in enumerate(Reading.told))


def test_eco_hybrid_reads_what_is_left_and_a_memory_is_not_concerned() -> None:
    denoiser = toys.eco()
    plan = Plan(context="canvas", block_size=8, steps=2, max_new_tokens=32)
    texts = [finish(denoiser, [[5, 6]], replace(plan, suffix=s)).tokens[0] for s in (WholeSuffix(), NEAR)]
    assert all(len(text) == 32 and denoiser.spec.mask_id not in text for text in texts)
    for kind in ("memory", "full"):
        one, other = (finish(denoiser, [[5]], replace(plan, context=kind, suffix=s)) for s in (WholeSuffix(), NEAR))
        assert one == other
