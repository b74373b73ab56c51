"""The rules of revealing by name: each name builds its object, no number is silently ignored, and llama.cpp's names."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from diffulex_edge.cli import infill, sample
from diffulex_edge.cli.aliases import translate
from diffulex_edge.cli.decoding import DecodingFlags
from diffulex_edge.cli.main import main
from diffulex_edge.cli.parse import parse
from diffulex_edge.cli.reveal_flags import NUMBERS
from diffulex_edge.cli.reveals import QUOTAS, REVEALS
from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.confidence import AsDrawn, margin, negative_entropy, probability
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.quota import BySchedule, EvenSplit, OneByOne, Proportional
from diffulex_edge.runtime.reveal import (
    Remasking,
    RevealAbove,
    RevealAll,
    RevealByChance,
    RevealEntropyBound,
    RevealFactor,
    RevealInOrder,
    RevealRandom,
    RevealTop,
)
from diffulex_edge.runtime.reveal_settled import Prophet, RevealSettled, SchED
from diffulex_edge.runtime.reveal_stable import RevealStable
from diffulex_edge.runtime.sampler import Categorical
from diffulex_edge.runtime.sub_blocks import SubBlocks
from diffulex_edge.tests import toys
from diffulex_edge.tests.conftest import TinyRun
from diffulex_edge.tests.test_cli_verbs import result

Said = pytest.CaptureFixture[str]
MODEL = toys.eco()


def plan(*words: str) -> Plan:
    """What `infill`, which is greedy by default, makes of flags."""
    return parse(infill.Flags, ["a ___", *words], prog="infill").decoding.plan(MODEL, None)


@pytest.mark.parametrize(
    ("words", "reveal"),
    [
        ("", RevealTop()),
        ("--reveal top", RevealTop()),
        ("--reveal threshold", RevealAbove()),
        ("--reveal threshold --threshold 0.7", RevealAbove(0.7)),
        ("--confidence_stop 0.7", RevealAbove(0.7)),
        ("--reveal factor --factor 0.5", RevealFactor(0.5)),
        ("--reveal entropy_bound --bound 0.3", RevealEntropyBound(0.3)),
        ("--reveal klass --threshold 0.8 --kl 0.02", RevealStable(0.8, 0.02)),
        ("--reveal prophet", RevealSettled(Prophet())),
        ("--reveal sched", RevealSettled(SchED())),
        ("--reveal in_order", RevealInOrder()),
        ("--reveal random", RevealRandom()),
        ("--reveal all", RevealAll()),
        ("--reveal origin --eps 0.01", RevealByChance(Fraction(1, 100))),
        ("--reveal maskgit_plus", RevealTop(probability)),
        ("--reveal topk_margin --alg_temp 0.2", RevealTop(margin, 0.2)),
        ("--reveal entropy", RevealTop(negative_entropy)),
        ("--sub_block 8 --confidence_stop 0.9", SubBlocks(RevealAbove(0.9), 8)),
        ("--remask_one_in 5", Remasking(RevealTop(), 5)),
        ("--remask_one_in 5 --sub_block 4", Remasking(SubBlocks(RevealTop(), 4), 5)),
    ],
)
def test_each_name_builds_its_rule(words: str, reveal: object) -> None:
    assert plan(*words.split()).reveal == reveal


def test_dreams_rules_measure_what_a_temperature_draws_from() -> None:
    draw = Categorical(temperature=0.2, top_p=0.95)
    for name, score in (("entropy", negative_entropy), ("maskgit_plus", probability)):
        wanted = RevealTop(AsDrawn(score, draw))
        assert plan("--reveal", name, "--temperature", "0.2", "--top_p", "0.95").reveal == wanted
    assert plan("--temperature", "0.2").reveal == RevealTop()


@pytest.mark.parametrize(
    ("words", "quota"),
    [
        ("", BySchedule()),
        ("--reveal klass", BySchedule()),
        ("--reveal entropy", Proportional()),
        ("--reveal origin", Proportional()),
        ("--reveal entropy --quota even", EvenSplit()),
        ("--quota one_by_one", OneByOne()),
        ("--quota proportional", Proportional()),
        ("--quota proportional --eps 0.1", Proportional(Fraction(1, 10))),
        ("--reveal entropy --eps 0.1", Proportional(Fraction(1, 10))),
    ],
)
def test_each_name_of_a_quota_builds_it(words: str, quota: object) -> None:
    assert plan(*words.split()).quota == quota


def test_every_rule_of_the_table_listens_to_numbers_that_are_flags() -> None:
    assert {name for rule in REVEALS.values() for name in rule.takes} == set(NUMBERS)
    assert {rule.quota for rule in REVEALS.values()} <= set(QUOTAS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--threshold 0.9", "--reveal top takes no number, not --threshold"),
        ("--reveal klass --factor 1", "--reveal klass takes --threshold and --kl, not --factor"),
        ("--quota even --eps 0.1", "not --eps"),
        ("--reveal threshold --threshold 2", "threshold=2.0"),
        ("--reveal best", "--reveal"),
        ("--quota most", "--quota"),
        ("--sub_block -1", "size=-1"),
        ("--confidence_stop 0.9 --reveal klass", "not both"),
        ("--confidence_stop 0.9 --threshold 0.8", "not both"),
    ],
)
def test_nonsense_is_refused_with_its_reason(words: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        plan(*words.split())
    assert said in str(refused.value)


@pytest.mark.parametrize("name", REVEALS)
def test_sample_and_infill_write_text_with_every_rule(tiny_run: TinyRun, capsys: Said, name: str) -> None:
    base = ["--ckpt", str(tiny_run.run), "--threads", "1", "--reveal", name, "--steps", "3"]
    said = result(["sample", "--prompt", "आज", "--max_new_tokens", "8", "--sub_block", "4", *base], capsys)
    assert said["tokens"] >= 1
    assert "___" not in result(["infill", "आज ___ है", "--length", "3", *base], capsys)["filled"]


def test_sample_ends_before_a_stop_string(tiny_run: TinyRun, capsys: Said) -> None:
    flags = ["sample", "--ckpt", str(tiny_run.run), "--prompt", "आज", "--threads", "1", "--seed", "3"]
    short = ["--max_new_tokens", "32", "--blockwise", "--block_size", "8", "--steps", "2"]
    free = result([*flags, *short], capsys)
    added = free["text"].removeprefix("आज")
    stop = added[4:6]
    ended = result([*flags, *short, "--stop", "no such text", stop], capsys)
    assert ended["text"] == "आज" + added[: added.index(stop)]
    assert ended["forwards"] <= free["forwards"]


LLAMA: list[tuple[str, str]] = [
    ("--diffusion-steps 64", "--steps 64"),
    ("--diffusion-steps=64", "--steps 64"),
    ("--diffusion_steps 64", "--steps 64"),
    ("--diffusion-algorithm 0", "--reveal origin"),
    ("--diffusion-algorithm 1", "--reveal entropy"),
    ("--diffusion-algorithm 2", "--reveal topk_margin"),
    ("--diffusion-algorithm 3", "--reveal random"),
    ("--diffusion-algorithm=4", "--reveal maskgit_plus"),
    ("--diffusion-block-length 32", "--blockwise --block_size 32 --quota even"),
    ("--diffusion-eps 0.001", "--quota proportional --eps 0.001"),
    ("--diffusion-visual --seed 3", "--seed 3"),
    ("--seed 3 a=b --prompt x", "--seed 3 a=b --prompt x"),
]


@pytest.mark.parametrize(("words", "meant"), LLAMA)
def test_the_names_of_llama_cpp_are_understood(words: str, meant: str) -> None:
    assert translate(words.split()) == meant.split()


def test_a_command_line_of_llama_cpp_gives_the_same_plan_as_ours() -> None:
    theirs = (
        "--diffusion-steps 16 --diffusion-algorithm 4 --diffusion-block-length 8 --diffusion-visual --temperature 0"
    )
    ours = "--steps 16 --reveal maskgit_plus --blockwise --block_size 8 --quota even --temperature 0"
    flags: list[Any] = [parse(sample.Flags, words.split(), prog="sample") for words in (theirs, ours)]
    assert flags[0] == flags[1]
    assert flags[0].blocks.plan(flags[0].decoding, MODEL, None).quota == EvenSplit()
    assert plan("--diffusion-algorithm", "1", "--diffusion-eps", "0.01").quota == Proportional(Fraction(1, 100))


@pytest.mark.parametrize("words", [["--diffusion-algorithm", "7"], ["--diffusion-steps"]])
def test_a_wrong_value_of_theirs_is_named(words: list[str], capsys: Said) -> None:
    assert main(["sample", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_the_flags_alone_give_the_plans_own_rule_and_quota() -> None:
    made = DecodingFlags().plan(MODEL, None)
    assert (made.reveal, made.quota) == (Plan().reveal, Plan().quota)
