"""Flags and the values they set: each default is written once, each profile exists for training too."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import pytest

from diffulex_edge.cli import infill, sample
from diffulex_edge.cli.blocks import BlockFlags
from diffulex_edge.cli.decoding import DecodingFlags
from diffulex_edge.cli.flags import PROFILES, ModelFlags
from diffulex_edge.diffusion.schedule import Cosine
from diffulex_edge.runtime.depth import LinearDepth
from diffulex_edge.runtime.plan import MODES, Plan, mode_plan
from diffulex_edge.runtime.reveal import RevealAbove
from diffulex_edge.runtime.sampler import Categorical, Greedy
from diffulex_edge.tests import toys
from diffulex_edge.tests.toys import Copycat
from diffulex_edge.train.recipe import EDGE_PROFILES

PLAIN: Any = Copycat()
TRAINED: Any = Copycat()
PLAIN.spec = replace(PLAIN.spec, contexts=toys.eco().spec.contexts)
TRAINED.spec = replace(PLAIN.spec, sample_steps=7, mask_schedule="cosine")


def test_flags_left_alone_give_the_plan_s_own_defaults() -> None:
    assert BlockFlags().plan(DecodingFlags(), PLAIN, None) == Plan()


def test_the_model_s_own_steps_and_schedule_hold_where_no_flag_and_no_profile_says_otherwise() -> None:
    plan = BlockFlags().plan(DecodingFlags(), TRAINED, None)
    assert (plan.steps, plan.schedule) == (7, Cosine())
    assert infill.Flags(text="a ___").decoding.plan(TRAINED, None).steps == 7
    assert ModelFlags().steps(None) is None
    assert ModelFlags(edge_profile="phone").steps(None) == PROFILES["phone"].steps
    assert ModelFlags(edge_profile="phone").steps(5) == 5


def test_each_flag_sets_its_choice() -> None:
    flags = DecodingFlags(
        steps=4, min_decode_layers=2, confidence_stop=0.95, temperature=0.7, top_k=5, top_p=0.9, seed=3
    )
    plan = BlockFlags(max_new_tokens=64, block_size=16).plan(flags, PLAIN, None)
    sampler = Categorical(temperature=0.7, top_k=5, top_p=0.9)
    wanted = Plan(max_new_tokens=64, block_size=16, steps=4, sampler=sampler, reveal=RevealAbove(0.95), seed=3)
    assert (plan.depth, plan.sampler, plan.reveal) == (LinearDepth(2), sampler, RevealAbove(0.95))
    assert (plan.max_new_tokens, plan.block_size, plan.steps, plan.seed) == (64, 16, 4, wanted.seed)


def test_no_temperature_is_greedy_whatever_the_other_numbers_say() -> None:
    for flags in (DecodingFlags(), DecodingFlags(top_k=5), DecodingFlags(top_p=0.5)):
        assert flags.plan(PLAIN, None).sampler == Greedy()


def test_sample_draws_and_infill_takes_the_likeliest() -> None:
    assert sample.Flags().decoding.plan(PLAIN, None).sampler == Categorical(temperature=1.2, top_p=0.9)
    assert infill.Flags(text="a ___").decoding.plan(PLAIN, None).sampler == Greedy()


def test_a_profile_overrules_the_model_s_steps_and_a_flag_the_profile_s() -> None:
    phone = PROFILES["phone"]
    plan = BlockFlags().plan(DecodingFlags(), TRAINED, phone)
    assert (plan.steps, plan.block_size) == (phone.steps, phone.block_size)
    assert BlockFlags(block_size=8).plan(DecodingFlags(steps=5), TRAINED, phone).steps == 5


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        (BlockFlags(), "full"),
        (BlockFlags(blockwise=True), "block"),
        (BlockFlags(blockwise=True, frozen_context=True), "block_frozen"),
        (BlockFlags(frozen_context=True), "block_frozen"),
    ],
)
def test_switches_name_a_mode(flags: BlockFlags, mode: str) -> None:
    assert flags.mode(PLAIN.spec) == mode


@pytest.mark.parametrize(("kind", "mode"), [("memory", "block_frozen"), ("kv", "kv"), ("canvas", "canvas")])
def test_a_program_without_a_full_context_is_run_as_it_was_made(kind: str, mode: str) -> None:
    spec = replace(PLAIN.spec, contexts={kind: None})
    assert BlockFlags().mode(spec) == mode
    assert BlockFlags(blockwise=True).mode(spec) == "block"


def test_blockwise_alone_means_blocks_of_32() -> None:
    flags = BlockFlags(blockwise=True)
    plan = mode_plan(flags.mode(PLAIN.spec), flags.plan(DecodingFlags(), PLAIN, None))
    assert (plan.block_size, plan.context) == (32, "full")


def test_every_profile_is_one_of_training_and_its_block_fits() -> None:
    named = get_args(get_args(get_type_hints(ModelFlags)["edge_profile"])[0])
    assert list(PROFILES) == list(EDGE_PROFILES) == list(named)
    assert set(MODES) >= {"full", "block", "block_frozen"}


def test_a_flag_of_train_that_the_recipe_knows_too_has_no_default_of_its_own() -> None:
    from diffulex_edge.train.objective import ObjectiveConfig
    from diffulex_edge.train.optim import OptimConfig
    from diffulex_edge.train.recipe import Recipe, TrainConfig

    known = {f.name for part in (Recipe, ObjectiveConfig, OptimConfig) for f in fields(part)} - {"model"}
    twice = {f.name: f.default for f in fields(TrainConfig) if f.name in known and f.default is not None}
    assert not twice
