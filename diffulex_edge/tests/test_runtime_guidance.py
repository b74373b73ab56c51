"""Guidance: the formula, what each half sees, and that scale 0 is the model itself. And the repetition penalty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import NONE, Denoiser
from diffulex_edge.runtime.depth import LinearDepth
from diffulex_edge.runtime.guidance import Guided, GuidedContext
from diffulex_edge.runtime.penalty import Penalised
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.quota import EvenSplit
from diffulex_edge.tests.runtime_toys import MASK, Script, Tape, finish
from diffulex_edge.tests.toys import backup, eco, ids

MODELS: list[tuple[Callable[[], Any], str]] = [
    (eco, "memory"),
    (eco, "full"),
    (eco, "canvas"),
    (backup, "canvas"),
    (lambda: backup(block_length=4), "kv"),
]
PROMPT, LATER, BLOCK = ids(2, 8, seed=1), ids(2, 4, seed=2), torch.full((2, 4), MASK)


def begun(denoiser: Any, kind: str, *texts: Tensor) -> Any:
    context = denoiser.begin(kind, 2, 20)
    for text in texts:
        for piece in text.split(4, 1):
            _, context = denoiser(piece, context, rows=NONE)
    return context


def looked(denoiser: Any, context: Any, block: Tensor) -> Any:
    """The context after a look at the block, as the loop refreshes it."""
    _, seen = denoiser(block, context)
    return context.refresh(seen, None)


def mixed(scale: float, with_prompt: Tensor, without: Tensor) -> Tensor:
    return without + (scale + 1) * (with_prompt - without)


@pytest.mark.parametrize(("make", "kind"), MODELS)
def test_logits_are_pushed_away_from_those_without_the_prompt(make: Callable[[], Any], kind: str) -> None:
    plain, guided = make(), Guided(make(), 1.5)
    logits, _ = guided(BLOCK, begun(guided, kind, PROMPT))
    c, _ = plain(BLOCK, begun(plain, kind, PROMPT))
    u, _ = plain(BLOCK, begun(plain, kind, torch.full_like(PROMPT, MASK)))
    torch.testing.assert_close(logits, mixed(1.5, c, u), rtol=1e-5, atol=1e-5)
    assert (c - u).abs().max() > 1e-3


@pytest.mark.parametrize(("make", "kind"), MODELS)
def test_tokens_that_were_decoded_are_seen_by_both(make: Callable[[], Any], kind: str) -> None:
    plain, guided = make(), Guided(make(), 2.0)
    context = looked(guided, begun(guided, kind, PROMPT), BLOCK)
    for block in (LATER, LATER):  # the second without a look, as one that is wholly given
        _, context = guided(block, context, rows=NONE)
    logits, _ = guided(BLOCK, context)
    c, _ = plain(BLOCK, begun(plain, kind, PROMPT, LATER, LATER))
    u, _ = plain(BLOCK, begun(plain, kind, torch.full_like(PROMPT, MASK), LATER, LATER))
    torch.testing.assert_close(logits, mixed(2.0, c, u), rtol=1e-5, atol=1e-5)


def test_a_canvas_decodes_as_the_guided_loop_of_llada_does() -> None:
    model, x = backup(), torch.tensor([[5, 6, 7, 8, 9] + [MASK] * 8])
    for end in (9, 13):
        for _ in range(2):
            blind = x.clone()
            blind[:, :5] = MASK
            logits = mixed(0.8, model(x)[0], model(blind)[0])
            logits[..., MASK] = -torch.inf
            confidence, token = logits.softmax(-1).max(-1)
            confidence = confidence.masked_fill((x != MASK) | (torch.arange(13) >= end), -torch.inf)
            best = confidence[0].topk(2).indices
            x[0, best] = token[0, best]
    plan = Plan(max_new_tokens=8, block_size=4, steps=2, context="canvas", quota=EvenSplit())
    assert finish(Guided(model, 0.8), [[5, 6, 7, 8, 9]], plan).texts == x.tolist()
    assert finish(model, [[5, 6, 7, 8, 9]], plan).texts != x.tolist()


def test_the_tail_of_a_prompt_in_the_first_block_is_prompt_and_stays_it() -> None:
    plain, guided = eco(), Guided(eco(), 1.0)
    first = torch.cat((PROMPT[:, :2], torch.full((2, 2), MASK)), 1)
    context = looked(guided, begun(guided, "memory"), first)
    halfway = torch.cat((first[:, :3], LATER[:, 3:]), 1)  # one token has become clear
    logits, seen = guided(halfway, context)
    blind = halfway.clone()
    blind[:, :2] = MASK
    expected = mixed(1.0, plain(halfway, begun(plain, "memory"))[0], plain(blind, begun(plain, "memory"))[0])
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    done = torch.cat((first[:, :2], LATER[:, 2:]), 1)
    blind_done = torch.cat((torch.full((2, 2), MASK), LATER[:, 2:]), 1)
    _, context = guided(done, context.refresh(seen, None), rows=NONE)
    expected = mixed(
        1.0, plain(BLOCK, begun(plain, "memory", done))[0], plain(BLOCK, begun(plain, "memory", blind_done))[0]
    )
    torch.testing.assert_close(guided(BLOCK, context)[0], expected, rtol=1e-5, atol=1e-5)


def test_what_a_context_has_decided_of_the_first_block_is_not_prompt() -> None:
    class Opening(Tape):
        def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
            return torch.cat((torch.full_like(block[:, :1], 7), block[:, 1:]), 1)

    class Opened(Script):
        def begin(self, *arguments: Any) -> Tape:
            tape = super().begin(*arguments)
            return Opening(tape.ids, tape.first, tape.aligned)

    inner = Opened()
    finish(Guided(inner, 1.0), [[5, 6, 8, 9]], Plan(max_new_tokens=4, block_size=4, steps=1))
    (both, *_), *_ = inner.looked
    assert both.tolist() == [[7, MASK, MASK, MASK]] * 2
    assert inner.remembered[0].tolist() == [[5, 6, 8, 9], [MASK] * 4]


@pytest.mark.parametrize("plan", [Plan(context="memory"), Plan(context="canvas")], ids=["memory", "canvas"])
def test_scale_0_makes_the_calls_of_the_model_and_no_others(plan: Plan) -> None:
    alone, inner = Script(), Script()
    assert finish(Guided(inner, 0), [[5, 6, 7]], plan) == finish(alone, [[5, 6, 7]], plan)
    calls = [[block.tolist() for block, *_ in each.looked] for each in (alone, inner)]
    assert calls[0] == calls[1]


def test_a_scale_costs_no_more_calls_but_twice_the_rows() -> None:
    alone, inner = Script(), Script()
    plan = Plan(max_new_tokens=8, block_size=4, steps=2)
    assert finish(Guided(inner, 1.0), [[5, 6, 7]], plan).forwards == finish(alone, [[5, 6, 7]], plan).forwards
    assert {len(block) for block, *_ in inner.looked} == {2}


def test_an_empty_prompt_changes_nothing() -> None:
    plan = Plan(max_new_tokens=8, block_size=4, steps=3, context="full")
    assert finish(Guided(eco(), 3.0), [[]], plan).tokens == finish(eco(), [[]], plan).tokens


@pytest.mark.parametrize(("make", "kind"), MODELS)
def test_a_guided_batch_decodes_as_its_rows_do_alone(make: Callable[[], Any], kind: str) -> None:
    guided = Guided(make(), 1.0)
    plan = Plan(max_new_tokens=7, block_size=4, steps=2, context=kind)
    prompts = [[5, 6, 7, 8, 9], [11], [20, 21, 22]]
    together = finish(guided, prompts, plan).tokens
    assert together == [finish(guided, [prompt], plan).tokens[0] for prompt in prompts]
    assert together != finish(make(), prompts, plan).tokens


@dataclass(frozen=True)
class Counting(Tape):
    """Decides how a block begins, keeps what a look saw, and writes down what lies ahead of each block."""

    kept: int = 0
    told: list[list[list[int]]] = field(default_factory=list)

    def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
        return torch.cat((torch.full_like(block[:, :1], 7), block[:, 1:]), 1)

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Counting:
        self.told.append(ahead.tolist())
        return self

    def refresh(self, seen: Any, step: Any) -> Counting:
        assert isinstance(seen, Counting)
        return replace(self, kept=self.kept + 1)


class Counted(Script):
    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[Counting] = []

    def begin(self, *arguments: Any) -> Counting:
        tape = super().begin(*arguments)
        return Counting(tape.ids, tape.first, tape.aligned)

    def __call__(self, block: Tensor, context: Any = None, **rest: Any) -> tuple[Tensor, Tape]:
        self.contexts.append(context)
        return super().__call__(block, context, **rest)


@pytest.mark.parametrize(("wrap", "rows"), [(lambda m: Guided(m, 1.0), 2), (lambda m: Penalised(m, 1.1), 1)], ids="gp")
def test_all_that_the_loop_says_reaches_the_model_and_its_context(wrap: Callable[[Any], Any], rows: int) -> None:
    inner = Counted()
    plan = Plan(max_new_tokens=4, block_size=4, steps=3, context="canvas", depth=LinearDepth(2))
    finish(wrap(inner), [[MASK, MASK, MASK, MASK, 8, 9]], plan)
    blocks, times, depths, wanted = zip(*inner.looked, strict=True)
    assert all(block[:, 0].tolist() == [7] * rows for block in blocks)
    assert [t.tolist() for t in times] == [pytest.approx([1 - i / 3] * rows) for i in range(3)]
    assert depths == (2, 4, 5)
    assert all(len(each) == rows for each in wanted)
    assert [context.kept for context in inner.contexts] == [0, 1, 2]
    assert inner.contexts[0].told == [[[8, 9]] * rows]


def test_a_penalised_model_of_few_bits_gives_logits_in_fp32() -> None:
    penalised = Penalised(backup().to(torch.bfloat16), 1.3)
    assert penalised(BLOCK, begun(penalised, "full", PROMPT))[0].dtype == torch.float32


def test_logits_come_for_the_rows_asked_for_in_fp32() -> None:
    guided, rows = Guided(backup().to(torch.bfloat16), 1.0), torch.tensor([[True, False, True, False]] * 2)
    context = begun(guided, "full", PROMPT)
    some, every = guided(BLOCK, context, rows=rows)[0], guided(BLOCK, context)[0]
    assert some.dtype == torch.float32
    torch.testing.assert_close(some, every[rows], rtol=2e-2, atol=2e-2)


def test_both_wrappers_are_denoisers_and_look_without_remembering() -> None:
    for wrapped in (Guided(eco(), 1.0), Penalised(eco(), 1.5)):
        assert isinstance(wrapped, Denoiser)
        context = begun(wrapped, "memory", PROMPT)
        before, _ = wrapped(BLOCK, context)
        wrapped(LATER, context)
        torch.testing.assert_close(wrapped(BLOCK, context)[0], before, rtol=0, atol=0)
        assert (context.exact, context.aligned) == (True, True)
        with pytest.raises(UsageError, match="is not a context of a"):
            wrapped(BLOCK, eco().begin("memory", 2, 16))


def test_without_a_context_the_text_shown_is_the_prompt() -> None:
    guided, block = Guided(eco(), 1.0), torch.tensor([[5, MASK, 7, MASK]])
    expected = mixed(1.0, eco()(block)[0], eco()(torch.full_like(block, MASK))[0])
    logits, context = guided(block)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert isinstance(context, GuidedContext)


@pytest.mark.parametrize("scale", [-0.1, float("inf"), float("nan")])
def test_a_scale_that_means_nothing_is_refused(scale: float) -> None:
    with pytest.raises(UsageError, match="guidance scale"):
        Guided(eco(), scale)


def test_a_penalty_divides_positive_and_multiplies_negative_logits_of_what_is_seen() -> None:
    plain, penalised = eco(), Penalised(eco(), 2.0)
    block = torch.tensor([[9, MASK, MASK, MASK], [MASK, MASK, MASK, 30]])
    rows = block == MASK
    logits, _ = penalised(block, begun(penalised, "memory", PROMPT), rows=rows)
    expected, _ = plain(block, begun(plain, "memory", PROMPT))
    for row in range(2):
        for token in {*PROMPT[row].tolist(), *block[row].tolist()}:
            x = expected[row, :, token]
            expected[row, :, token] = torch.where(x > 0, x / 2, x * 2)
    torch.testing.assert_close(logits, expected[rows], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(penalised(block, begun(penalised, "memory", PROMPT))[0], expected, rtol=1e-5, atol=1e-5)


def test_a_large_penalty_repeats_no_token_and_one_of_1_is_none() -> None:
    plan = Plan(max_new_tokens=8, block_size=4, steps=4, context="full")
    prompt = [5, 6, 7]
    text = finish(Penalised(Script(), 1e6), [prompt], plan).texts[0]
    assert len(set(text)) == len(text)
    free = finish(Script(), [prompt], plan)
    assert len(set(free.texts[0])) < len(free.texts[0])
    assert finish(Penalised(Script(), 1.0), [prompt], plan) == free


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan")])
def test_a_penalty_that_means_nothing_is_refused(penalty: float) -> None:
    with pytest.raises(UsageError, match="repetition_penalty"):
        Penalised(eco(), penalty)
