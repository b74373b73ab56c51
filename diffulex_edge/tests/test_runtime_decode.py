"""The loop, against a denoiser that writes down its calls: limits, batches, stops, infilling, and its bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffulex_edge.diffusion.schedule import Cosine
from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.confidence import negative_entropy
from diffulex_edge.runtime.decode import decode
from diffulex_edge.runtime.depth import LinearDepth
from diffulex_edge.runtime.plan import Plan, mode_plan
from diffulex_edge.runtime.quota import BySchedule, EvenSplit, OneByOne, Proportional
from diffulex_edge.runtime.reveal import (
    Remasking,
    Reveal,
    RevealAbove,
    RevealByChance,
    RevealEntropyBound,
    RevealFactor,
    RevealInOrder,
    RevealRandom,
    RevealTop,
)
from diffulex_edge.runtime.reveal_settled import RevealSettled, SchED
from diffulex_edge.runtime.reveal_stable import RevealStable
from diffulex_edge.runtime.sampler import Categorical, Greedy
from diffulex_edge.runtime.sub_blocks import SubBlocks
from diffulex_edge.tests.runtime_toys import EOS, MASK, VOCAB, Script, Tape, events, finish

SMALL = Plan(max_new_tokens=8, block_size=4, steps=2)
CONTEXTS = ("memory", "full", "canvas")
REVEALS = [
    RevealTop(),
    RevealAbove(0.5),
    RevealFactor(),
    RevealEntropyBound(),
    RevealInOrder(),
    RevealRandom(),
    Remasking(one_in=2),
    RevealTop(negative_entropy, alg_temp=0.5),
    RevealByChance(),
    RevealStable(0.3, kl=0.5, history=1),
    RevealSettled(SchED(3.0)),
    SubBlocks(size=2),
]
WITHOUT_CHANCE = [
    RevealTop(),
    RevealAbove(0.3),
    RevealTop(negative_entropy),
    RevealStable(0.3, kl=0.5, history=1),
    RevealSettled(SchED(3.0)),
    SubBlocks(RevealAbove(0.3), size=2),
]
plans = st.builds(
    Plan,
    max_new_tokens=st.integers(0, 9),
    block_size=st.integers(1, 7),
    steps=st.integers(1, 6),
    context=st.sampled_from(CONTEXTS),
    quota=st.sampled_from([BySchedule(), EvenSplit(), Proportional(), OneByOne()]),
    schedule=st.just(Cosine()),
    sampler=st.sampled_from([Greedy(), Categorical(temperature=2.0)]),
    reveal=st.sampled_from(REVEALS),
    stop_ids=st.sampled_from([(), (EOS,), tuple(range(10, VOCAB))]),
    seed=st.integers(0, 3),
)
ids = st.integers(4, VOCAB - 1)
rows = st.lists(st.lists(st.one_of(ids, ids, st.just(MASK)), max_size=9), min_size=1, max_size=3)


@given(rows, plans, st.sampled_from([None, MASK]), st.integers(0, 5))
@settings(deadline=None, max_examples=100)
def test_whatever_the_plan_the_loop_ends_in_bounds_and_keeps_its_word(
    prompts: list[list[int]], plan: Plan, love: int | None, seed: int
) -> None:
    denoiser = Script(seed, love=love)
    drafts, committed, finished = events(denoiser, prompts, plan)
    assert finished.forwards == len(denoiser.looked) == len(drafts) <= plan.steps * len(committed)
    assert finished.commits == len(denoiser.remembered)
    for row, (prompt, text, new) in enumerate(zip(prompts, finished.texts, finished.tokens, strict=True)):
        whole = prompt if MASK in prompt else prompt + [MASK] * plan.max_new_tokens
        assert MASK not in text
        assert MASK not in new
        assert all(a == b for a, b in zip(whole, text, strict=False) if a != MASK), "what was given changed"
        assert [b for a, b in zip(whole, text, strict=False) if a == MASK] == new
        assert new == [i for event in committed for i in event.block[row][event.asked[row]].tolist()]
        if len(text) < len(whole):
            assert new[-1] in plan.stop_ids
        assert not set(new[:-1]) & set(plan.stop_ids)


@given(rows.filter(lambda found: len(found) > 1), plans, st.sampled_from(WITHOUT_CHANCE), st.integers(0, 5))
@settings(deadline=None, max_examples=120)
def test_a_batch_decodes_as_its_rows_do_alone(prompts: list[list[int]], plan: Plan, reveal: Reveal, seed: int) -> None:
    plan = replace(plan, sampler=Greedy(), reveal=reveal)
    prompts = [[token for token in prompt if token != MASK] for prompt in prompts]
    together = finish(Script(seed), prompts, plan)
    assert together.tokens == [finish(Script(seed), [prompt], plan).tokens[0] for prompt in prompts]


@given(rows.filter(lambda found: len(found) > 1), st.integers(1, 7), st.integers(0, 5))
@settings(deadline=None, max_examples=100)
def test_a_batch_of_gaps_is_filled_as_each_alone_on_the_grid_of_blocks(
    prompts: list[list[int]], block_size: int, seed: int
) -> None:
    plan = Plan(max_new_tokens=5, block_size=block_size, steps=3, context="memory")
    together = finish(Script(seed), prompts, plan)
    assert together.texts == [finish(Script(seed), [prompt], plan).texts[0] for prompt in prompts]


@given(plans, st.lists(st.lists(ids, max_size=6), min_size=1, max_size=2))
@settings(deadline=None, max_examples=60)
def test_the_same_seed_gives_the_same_text(plan: Plan, prompts: list[list[int]]) -> None:
    first = finish(Script(1), prompts, plan)
    torch.manual_seed(7)
    assert finish(Script(1), prompts, plan) == first


def test_another_seed_gives_another_text() -> None:
    plan = replace(SMALL, sampler=Categorical(temperature=3.0))
    assert len({str(finish(Script(), [[5]], replace(plan, seed=seed)).tokens) for seed in range(4)}) == 4


def test_the_calls_are_prefill_denoise_commit_and_none_after_the_last_block() -> None:
    denoiser = Script()
    drafts, committed, finished = events(denoiser, [[5, 6, 7, 8, 9, 10]], SMALL)
    assert [block.shape[1] for block, *_ in denoiser.looked] == [4] * 6  # the prompt's tail shares the first block
    assert [event.start for event in committed] == [4, 8, 12]
    assert [len(block[0]) for block in denoiser.remembered] == [4, 4, 4]
    assert denoiser.remembered[0].tolist() == [[5, 6, 7, 8]]
    assert torch.equal(denoiser.remembered[1], committed[0].block)
    assert torch.equal(denoiser.remembered[2], committed[1].block)
    assert (finished.forwards, finished.commits) == (6, 3)
    assert [len(guess.token) for guess in (draft.guess for draft in drafts)] == [2, 1, 4, 2, 2, 1]


def test_logits_are_asked_for_hidden_positions_only() -> None:
    denoiser = Script()
    events(denoiser, [[5, 6, 7]], replace(SMALL, max_new_tokens=1))
    block, t, depth, wanted = denoiser.looked[0]
    assert block.tolist() == [[5, 6, 7, MASK]]
    assert wanted.tolist() == [[False, False, False, True]]
    assert t.tolist() == [1.0]
    assert depth == denoiser.spec.n_layers


def test_a_context_of_ids_takes_the_prompt_in_one_call_and_blocks_begin_behind_it() -> None:
    denoiser = Script()
    _, committed, _ = events(denoiser, [[5, 6, 7, 8, 9, 10]], replace(SMALL, context="full"))
    assert [tuple(block.shape) for block in denoiser.remembered] == [(1, 6), (1, 4)]
    assert [event.start for event in committed] == [6, 10]


def test_block_causal_attention_takes_the_prompt_in_one_call_and_memory_block_by_block() -> None:
    for block_length, shapes in ((None, [4, 4, 4]), (2, [12])):
        denoiser = Script(block_length=block_length)
        finish(denoiser, [list(range(4, 16))], replace(SMALL, max_new_tokens=1))
        assert [block.shape[1] for block in denoiser.remembered] == shapes


def test_blocks_that_straddle_the_models_own_are_refused() -> None:
    with pytest.raises(UsageError, match="block_size=4 is not a multiple of 3"):
        finish(Script(block_length=3), [[5]], SMALL)
    assert finish(Script(block_length=3), [[5]], replace(SMALL, context="full")).tokens


def test_rows_are_padded_by_whole_blocks_where_the_grid_matters() -> None:
    denoiser = Script()
    finish(denoiser, [[5] * 6, [6], [7] * 11], SMALL)
    assert denoiser.began[-1][0:3] == ("memory", 3, 20)
    assert denoiser.began[-1][3].tolist() == [4, 8, 0]  # type: ignore[union-attr]
    finish(denoiser, [[5] * 6, [6], [7] * 11], replace(SMALL, context="full"))
    assert denoiser.began[-1][0:3] == ("full", 3, 19)
    assert denoiser.began[-1][3].tolist() == [5, 10, 0]  # type: ignore[union-attr]


def test_without_padding_the_model_is_told_of_none() -> None:
    denoiser = Script()
    finish(denoiser, torch.tensor([[5, 6], [7, 8]]), SMALL)
    assert denoiser.began[-1][3] is None


def test_the_text_beyond_the_block_is_shown_to_the_context() -> None:
    ahead: list[list[list[int]]] = []

    class Watching(Tape):
        def facing(self, beyond: torch.Tensor, at: torch.Tensor | None = None) -> Tape:
            ahead.append(beyond.tolist())
            return super().facing(beyond)

    class Watched(Script):
        def begin(self, *arguments: Any) -> Tape:
            tape = super().begin(*arguments)
            return Watching(tape.ids, tape.first, tape.aligned)

    finish(Watched(), [[5, MASK, 6, MASK, 7]], Plan(block_size=2, steps=1, context="canvas"))
    assert ahead == [[[MASK, 7]], [[]]]


def test_what_a_context_has_decided_of_a_block_is_not_asked_for_again() -> None:
    class Opening(Tape):
        def open(self, block: torch.Tensor, banned: Sequence[int] = ()) -> torch.Tensor:
            return torch.cat((torch.full_like(block[:, :1], 7), block[:, 1:]), 1)

    class Opened(Script):
        def begin(self, *arguments: Any) -> Tape:
            tape = super().begin(*arguments)
            return Opening(tape.ids, tape.first, tape.aligned)

    drafts, _, finished = events(Opened(), [[]], replace(SMALL, steps=1))
    assert [len(draft.guess.token) for draft in drafts] == [3, 3]
    assert finished.tokens[0][::4] == [7, 7]
    assert len(finished.tokens[0]) == 8


def test_a_context_may_keep_what_a_step_saw() -> None:
    kept: list[int] = []

    class Keeping(Tape):
        def refresh(self, seen: Any, step: Any) -> Tape:
            assert isinstance(seen, Keeping)
            kept.append(step.index)
            return Keeping(self.ids, self.first, self.aligned, ahead=torch.tensor([[len(kept)]]))

    read: list[Any] = []

    class Kept(Script):
        def begin(self, *arguments: Any) -> Tape:
            tape = super().begin(*arguments)
            return Keeping(tape.ids, tape.first, tape.aligned)

        def __call__(self, block: torch.Tensor, context: Any = None, **rest: Any) -> tuple[torch.Tensor, Tape]:
            read.append(context.ahead.tolist())
            return super().__call__(block, context, **rest)

    finish(Kept(), [[]], Plan(max_new_tokens=4, block_size=4, steps=3))
    assert kept == [0, 1, 2]
    assert read == [[[]], [[1]], [[2]]]


@pytest.mark.parametrize("context", CONTEXTS)
class TestLimits:
    def test_one_step_shows_everything_at_once(self, context: str) -> None:
        finished = finish(Script(), [[5, 6]], replace(SMALL, steps=1, block_size=8, context=context, max_new_tokens=6))
        assert finished.forwards == 1
        assert len(finished.tokens[0]) == 6

    def test_an_empty_prompt_is_gone_on_from(self, context: str) -> None:
        finished = finish(Script(), [[]], replace(SMALL, context=context))
        assert len(finished.tokens[0]) == 8
        assert finished.tokens == finished.texts
        assert finished.commits == 1

    def test_an_empty_prompt_beside_a_long_one(self, context: str) -> None:
        both = finish(Script(), [[], [5] * 9], replace(SMALL, context=context))
        assert both.tokens[0] == finish(Script(), [[]], replace(SMALL, context=context)).tokens[0]

    def test_nothing_asked_for_costs_nothing(self, context: str) -> None:
        cases: list[list[list[int]]] = [[[5, 6, 7, 8, 9]], [[]], [[5], []]]
        for prompts in cases:
            denoiser = Script()
            finished = finish(denoiser, prompts, replace(SMALL, context=context, max_new_tokens=0))
            assert finished.texts == prompts
            assert finished.tokens == [[] for _ in prompts]
            assert (finished.forwards, finished.commits) == (0, 0) == (len(denoiser.looked), len(denoiser.remembered))

    def test_more_steps_than_tokens_take_one_a_token(self, context: str) -> None:
        finished = finish(Script(), [[5, 6, 7, 8]], replace(SMALL, steps=50, context=context, max_new_tokens=4))
        assert finished.forwards == 4

    def test_a_length_that_is_no_multiple_of_the_block_is_kept(self, context: str) -> None:
        for length in (1, 3, 4, 5, 7):
            finished = finish(Script(), [[5] * 3], replace(SMALL, max_new_tokens=length, context=context))
            assert len(finished.tokens[0]) == length

    def test_a_threshold_of_one_is_the_quota_alone(self, context: str) -> None:
        plan = replace(SMALL, context=context, steps=3)
        sure = finish(Script(), [[5]], replace(plan, reveal=RevealAbove(1.0)))
        assert sure == finish(Script(), [[5]], plan)

    def test_one_token_blocks_decode_one_by_one(self, context: str) -> None:
        finished = finish(Script(), [[5, 6]], replace(SMALL, block_size=1, context=context))
        assert finished.forwards == 8

    def test_a_gap_is_filled_and_nothing_is_added(self, context: str) -> None:
        finished = finish(Script(), [[5, MASK, 6, MASK, MASK, 7]], replace(SMALL, context=context))
        [text] = finished.texts
        assert [text[0], text[2], text[5]] == [5, 6, 7]
        assert len(text) == 6
        assert finished.tokens == [[text[1], text[3], text[4]]]


def test_a_block_that_is_wholly_given_costs_no_forward() -> None:
    denoiser = Script()
    _, committed, finished = events(denoiser, [[MASK, *[5] * 8, MASK]], Plan(block_size=4, steps=4, context="memory"))
    assert finished.forwards == 2
    assert [event.asked.any().item() for event in committed] == [True, False, True]


def test_threshold_decoding_saves_forwards() -> None:
    slow = finish(Script(), [[5]], replace(SMALL, steps=4, quota=OneByOne()))
    fast = finish(Script(), [[5]], replace(SMALL, steps=4, quota=OneByOne(), reveal=RevealAbove(0.2)))
    assert fast.forwards < slow.forwards == 3 + 4 + 1  # blocks of 3, 4 and 1 hidden tokens


def test_depth_follows_the_schedule_and_commits_are_whole() -> None:
    denoiser = Script(n_layers=5)
    finish(denoiser, [[]], Plan(max_new_tokens=8, block_size=4, steps=4, depth=LinearDepth(2)))
    assert [depth for _, _, depth, _ in denoiser.looked] == [2, 3, 4, 5] * 2


def test_what_is_banned_never_comes() -> None:
    banned = tuple(range(4, VOCAB - 2))
    finished = finish(Script(), [[5]], replace(SMALL, banned=banned, sampler=Categorical(temperature=9.0)))
    assert not set(finished.tokens[0]) & {*banned, MASK}


def test_the_fallback_fills_what_a_reveal_never_shows() -> None:
    def lazy(guess, block, given, step, state):  # type: ignore[no-untyped-def]
        return block, state

    denoiser = Script(love=MASK)
    drafts, _, finished = events(denoiser, [[5, 6, 7, 8]], replace(SMALL, max_new_tokens=4, reveal=lazy))
    assert finished.forwards == 2 + 1
    assert [draft.step.fallback for draft in drafts] == [False, False, True]
    assert denoiser.looked[-1][2] == denoiser.spec.n_layers
    assert MASK not in finished.tokens[0]


def test_drafts_show_the_block_growing_clear() -> None:
    drafts, [committed], _ = events(Script(), [[5, 6]], Plan(max_new_tokens=6, block_size=8, steps=3))
    assert [(draft.block == MASK).sum().item() for draft in drafts] == [4, 2, 0]
    assert [draft.step.index for draft in drafts] == [0, 1, 2]
    assert torch.equal(drafts[-1].block, committed.block)
    assert drafts[0].asked.tolist() == [[False] * 2 + [True] * 6]


def test_padding_behind_a_rows_end_is_not_decoded() -> None:
    drafts, [committed], _ = events(Script(), [[5, 6]], Plan(max_new_tokens=3, block_size=8, steps=3))
    assert committed.asked.tolist() == [[False] * 2 + [True] * 3 + [False] * 3]
    assert committed.block[0, 5:].tolist() == [MASK] * 3
    assert all(len(draft.guess.token) <= 3 for draft in drafts)


def test_prompts_may_be_a_tensor() -> None:
    prompts = [[5, 6, 7], [8, 9, 10]]
    assert finish(Script(), torch.tensor(prompts), SMALL) == finish(Script(), prompts, SMALL)


@pytest.mark.parametrize(
    ("prompts", "plan", "said"),
    [
        ([], SMALL, "no prompts"),
        ([[5, VOCAB]], SMALL, f"the id {VOCAB}; the model's vocabulary has {VOCAB}"),
        ([[-1]], SMALL, "the id -1"),
        ([[5]], replace(SMALL, stop_ids=(99,)), "names the id 99"),
        ([[5]], replace(SMALL, banned=(VOCAB,)), f"names the id {VOCAB}"),
        ([[5]], replace(SMALL, depth=LinearDepth(6)), "6 is more than the model's 5 layers"),
    ],
)
def test_nonsense_is_refused_with_its_value(prompts: Sequence[Sequence[int]], plan: Plan, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        finish(Script(), prompts, plan)


def test_inference_mode_does_not_leak_to_whoever_reads_the_events() -> None:
    stream = decode(Script(), [[5]], SMALL)
    next(stream)
    assert not torch.is_inference_mode_enabled()
    stream.close()  # type: ignore[attr-defined]


def test_the_modes_of_the_seed_give_the_text_its_length() -> None:
    for mode, forwards in (("full", 4), ("block", 8), ("block_frozen", 12)):
        finished = finish(Script(), [[5]], mode_plan(mode, Plan(max_new_tokens=8, block_size=4, steps=4)))
        assert len(finished.tokens[0]) == 8
        assert finished.forwards <= forwards
