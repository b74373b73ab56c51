"""The two engines: they say what `decode` says, to the token, and keep the promises of seed 003."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.model import (
    DreamEdge,
    DreamEdgeConfig,
    FastdLLMV2Edge,
    FastdLLMV2EdgeConfig,
    LLaDAEdge,
    LLaDAEdgeConfig,
    SDAREdge,
    SDAREdgeConfig,
)
from diffulex_edge.runtime.diffusion import DiffusionEngine, DiffusionGenerationConfig
from diffulex_edge.runtime.engine import GenerationConfig, InferenceEngine
from diffulex_edge.runtime.guidance import Guided
from diffulex_edge.runtime.penalty import Penalised
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.reveal import RevealAbove
from diffulex_edge.runtime.sampler import Categorical, Greedy
from diffulex_edge.runtime.sampler_names import GreedySampler, TemperatureSampler, TopKSampler, TopPSampler, get_sampler
from diffulex_edge.tests.runtime_toys import EOS, MASK, VOCAB, Script, finish
from diffulex_edge.tests.toys import Copycat, backup, eco, randomise
from diffulex_edge.tests.tree import ROOT

Make = Callable[[], Any]
QWENS: list[tuple[Any, Any]] = [
    (DreamEdge, DreamEdgeConfig),
    (SDAREdge, SDAREdgeConfig),
    (FastdLLMV2Edge, FastdLLMV2EdgeConfig),
]
SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
}
MODELS: list[tuple[Make, str, int]] = [  # and the context and block size that the engines choose
    (eco, "memory", 32),
    (backup, "canvas", 32),
    (lambda: backup(block_length=8), "kv", 8),
]
PROMPT = [5, 6, 7, 8, 9]
GREEDY = GenerationConfig(max_new_tokens=11, temperature=0, steps=3)
STILL = DiffusionGenerationConfig(max_new_tokens=11, temperature=0, num_iterations=3)


def engine(model: Any) -> Any:
    return InferenceEngine.from_model(model)


def diffusion(model: Any) -> Any:
    return DiffusionEngine(model=model)


@pytest.mark.parametrize(("make", "context", "block_size"), MODELS)
def test_the_engine_says_what_decode_says(make: Make, context: str, block_size: int) -> None:
    plan = Plan(max_new_tokens=11, steps=3, context=context, block_size=block_size)
    assert engine(make()).generate(PROMPT, GREEDY) == finish(make(), [PROMPT], plan).tokens[0]


@pytest.mark.parametrize(
    ("make", "context", "unit"), [(eco, "memory", 10), (backup, "canvas", 10), (MODELS[2][0], "kv", 16)]
)
def test_the_diffusion_engine_says_what_decode_says(make: Make, context: str, unit: int) -> None:
    plan = Plan(max_new_tokens=11, steps=3, context=context, block_size=unit, reveal=RevealAbove(0.95))
    assert diffusion(make()).generate(PROMPT, STILL) == finish(make(), [PROMPT], plan).texts[0]


def test_both_engines_say_the_same_where_they_are_asked_the_same() -> None:
    drawn: dict[str, Any] = {
        "max_new_tokens": 12,
        "temperature": 0.8,
        "top_k": 9,
        "top_p": 0.95,
        "seed": 4,
        "block_size": 4,
    }
    one = engine(backup()).generate(PROMPT, GenerationConfig(steps=2, **drawn))
    other = diffusion(backup()).generate(
        PROMPT, DiffusionGenerationConfig(num_iterations=2, confidence_threshold=1.0, **drawn)
    )
    assert other == PROMPT + one


@pytest.mark.parametrize("make", [make for make, *_ in MODELS])
def test_no_mask_is_left_and_lengths_are_exact_however_few_the_iterations(make: Make) -> None:
    for iterations in (1, 2, 50):
        for length in (0, 1, 16, 33):
            config = DiffusionGenerationConfig(
                max_new_tokens=length, num_iterations=iterations, confidence_threshold=1.0
            )
            text = diffusion(make()).generate(PROMPT, config)
            assert text[:5] == PROMPT
            assert len(text) == 5 + length
            assert MASK not in text
            new = engine(make()).generate(PROMPT, GenerationConfig(max_new_tokens=length, steps=iterations))
            assert len(new) == length
            assert MASK not in new


@pytest.mark.parametrize("make", [make for make, *_ in MODELS])
def test_a_batch_of_four_says_what_each_says_alone(make: Make) -> None:
    prompts = [[5], [6, 7, 8, 9, 10, 11, 12, 13, 14], [20, 21], [30, 31, 32]]
    for asked, config in ((engine(make()), GREEDY), (diffusion(make()), STILL)):
        assert asked.generate(prompts, config) == [asked.generate(prompt, config) for prompt in prompts]


FAMILIES: list[Any] = [
    LLaDAEdge(LLaDAEdgeConfig(vocab_size=48, d_model=32, n_layers=2, n_heads=2, n_kv_heads=2, mlp_hidden_size=32)),
    *(make(config(**SIZES)) for make, config in QWENS),
]


@pytest.mark.parametrize("model", [randomise(model) for model in FAMILIES], ids=lambda model: type(model).__name__)
def test_the_families_decode_in_every_context_guided_and_penalised(model: Any) -> None:
    prompts = [[5, 6, 7, 8, 9], [11], [20, 21, 22]]
    config = GenerationConfig(max_new_tokens=9, temperature=0, steps=3, repetition_penalty=1.2)
    for kind in model.spec.contexts:
        asked: Any = InferenceEngine(Guided(model, 1.5), context=kind)
        together = asked.generate(prompts, config)
        assert together == [asked.generate(prompt, config) for prompt in prompts]
        assert [len(text) for text in together] == [9] * 3
        assert not {model.spec.mask_id} & {token for text in together for token in text}
    assert len(diffusion(model).generate([1, 2, 3], DiffusionGenerationConfig(max_new_tokens=9))) == 12


def test_a_prompt_may_be_a_list_or_a_tensor_and_a_batch_gives_lists() -> None:
    for asked, config in ((engine(eco()), GREEDY), (diffusion(eco()), STILL)):
        text = asked.generate(PROMPT, config)
        assert all(type(token) is int for token in text)
        for prompt in (tuple(PROMPT), torch.tensor(PROMPT), torch.tensor([PROMPT])):
            assert asked.generate(prompt, config) == text
        for batch in ([PROMPT], [torch.tensor(PROMPT)]):
            assert asked.generate(batch, config) == [text]
        for pair in ([PROMPT, PROMPT], torch.tensor([PROMPT, PROMPT])):
            assert asked.generate(pair, config) == [text, text]
        assert len(asked.generate([], config)) == 11


@pytest.mark.parametrize("make", [make for make, *_ in MODELS])
def test_a_stream_gives_what_generate_gives(make: Make) -> None:
    config = GenerationConfig(max_new_tokens=20, steps=2, block_size=8, seed=3)
    stream = engine(make()).generate_stream(PROMPT, config)
    assert isinstance(stream, Iterator)
    assert list(stream) == engine(make()).generate(PROMPT, config)
    spread = DiffusionGenerationConfig(max_new_tokens=20, num_iterations=2, seed=3)
    text = diffusion(make()).generate(PROMPT, spread)
    pairs = list(diffusion(make()).generate_stream(PROMPT, spread))
    assert [position for position, _ in pairs] == list(range(5, 25))
    assert [token for _, token in pairs] == text[5:]


def test_a_stream_comes_block_by_block() -> None:
    model = Script()
    stream = engine(model).generate_stream([5, 6], GenerationConfig(max_new_tokens=12, block_size=4, steps=2))
    assert model.looked == []
    next(stream)
    next(stream)  # the block holds two tokens of the prompt
    assert len(model.looked) == 2
    next(stream)
    assert len(model.looked) == 4
    pairs = diffusion(model).generate_stream([5, 6], DiffusionGenerationConfig(block_size=4))
    assert next(pairs)[0] == 2


def test_generate_with_stream_is_the_stream() -> None:
    config = GenerationConfig(max_new_tokens=9, stream=True)
    assert list(engine(eco()).generate(PROMPT, config)) == list(engine(eco()).generate_stream(PROMPT, config))
    assert isinstance(engine(eco()).generate(PROMPT, config), Iterator)


def test_an_end_of_text_stops_and_early_stop_false_goes_on() -> None:
    new = engine(Script(love=EOS)).generate(PROMPT, GenerationConfig(eos_token_id=EOS))
    assert new == [EOS]
    text = diffusion(Script(love=EOS)).generate(PROMPT, DiffusionGenerationConfig(eos_token_id=EOS))
    assert text == [*PROMPT, EOS]
    config = DiffusionGenerationConfig(eos_token_id=EOS, early_stop=False, max_new_tokens=7)
    assert diffusion(Script(love=EOS)).generate(PROMPT, config) == [*PROMPT, *[EOS] * 7]


def test_an_end_of_text_that_is_not_said_is_the_models() -> None:
    model = Script(love=EOS)
    assert len(engine(model).generate(PROMPT, GREEDY)) == 11
    model.spec = replace(model.spec, stop_ids=(4, EOS))
    for wrapped in (model, Guided(model, 1.0), Penalised(model, 1.1)):
        assert engine(wrapped).generate(PROMPT, GREEDY) == [EOS]
        assert diffusion(wrapped).generate(PROMPT, STILL) == [*PROMPT, EOS]
    assert engine(model).plan(GenerationConfig(eos_token_id=9)).stop_ids == (9,)
    assert diffusion(model).plan(DiffusionGenerationConfig(eos_token_id=9)).stop_ids == (9,)


def test_padding_is_not_written_unless_it_ends_the_text() -> None:
    config = GenerationConfig(max_new_tokens=5, pad_token_id=7)
    assert 7 not in engine(Script(love=7)).generate(PROMPT, config)
    both = GenerationConfig(max_new_tokens=5, pad_token_id=7, eos_token_id=7)
    assert engine(Script(love=7)).generate(PROMPT, both) == [7]


def counting(upto: int) -> Any:
    """Counts on from the prompt, one token a step."""
    return GenerationConfig(max_new_tokens=upto, temperature=0, block_size=4, steps=4)


def test_stop_sequences_end_a_row_behind_them_also_across_blocks() -> None:
    model = engine(Copycat())
    ahead = model.generate([10], counting(12))
    assert ahead == list(range(11, 23))
    for stop in ([13], [12, 13], [14, 15], [11, 12, 13, 14, 15]):
        config = GenerationConfig(
            max_new_tokens=12, temperature=0, block_size=4, steps=4, stop_sequences=[[40, 41], stop]
        )
        text = ahead[: ahead.index(stop[-1]) + 1]
        assert model.generate([10], config) == text
        assert list(model.generate_stream([10], config)) == text
        assert model.generate([[10], [30]], config) == [text, model.generate([30], config)]


def test_a_stop_sequence_saves_the_forwards_behind_it() -> None:
    model = Copycat()
    config = GenerationConfig(
        max_new_tokens=40, temperature=0, block_size=4, steps=4, stop_sequences=((12, 13), (22, 23))
    )
    assert engine(model).generate([[10], [20]], config) == [[11, 12, 13], [21, 22, 23]]
    assert sum(not remembering for *_, remembering in model.calls) == 4
    assert engine(model).plan(GenerationConfig(stop_sequences=[[7], [8, 9], [11]])).stop_ids == (7, 11)


def test_a_repetition_penalty_is_carried_out() -> None:
    free = engine(Script()).generate(PROMPT, GenerationConfig(max_new_tokens=10, temperature=0, block_size=2))
    config = GenerationConfig(max_new_tokens=10, temperature=0, block_size=1, repetition_penalty=1e6)
    text: Any = engine(Script()).generate(PROMPT, config)
    assert len(set(free)) < 10
    assert len({*PROMPT, *text}) == 15


def test_the_numbers_of_the_config_reach_the_plan() -> None:
    plan = engine(eco()).plan(GenerationConfig())
    assert plan.sampler == Categorical(temperature=1.0, top_k=50, top_p=0.9)
    assert (plan.max_new_tokens, plan.block_size, plan.steps, plan.seed) == (100, 32, Plan.steps, 0)
    spread = diffusion(eco()).plan(DiffusionGenerationConfig())
    assert spread.sampler == Categorical(temperature=1.0)
    assert (spread.max_new_tokens, spread.block_size, spread.steps) == (100, 10, 10)
    assert spread.reveal == RevealAbove(0.95)


def test_what_is_not_said_is_as_the_model_was_trained() -> None:
    model = Script()
    model.spec = replace(model.spec, sample_steps=7, mask_schedule="cosine")
    plan, spread = engine(model).plan(GenerationConfig()), diffusion(model).plan(DiffusionGenerationConfig())
    assert (plan.steps, spread.steps) == (7, 10)
    assert plan.schedule == spread.schedule == plan_for(model.spec).schedule != Plan.schedule
    assert engine(model).plan(GenerationConfig(steps=3)).steps == 3


def test_the_seed_is_the_text() -> None:
    texts = [engine(eco()).generate(PROMPT, GenerationConfig(seed=seed, top_k=0, top_p=1)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_block_size_off_the_grid_is_rounded_by_one_engine_and_refused_by_the_other() -> None:
    model = backup(block_length=8)
    assert diffusion(model).plan(DiffusionGenerationConfig(block_size=10)).block_size == 16
    assert len(diffusion(model).generate(PROMPT)) == 105
    with pytest.raises(UsageError, match="block_size=10 is not a multiple of 8"):
        engine(model).generate(PROMPT, GenerationConfig(block_size=10))


def test_a_vocabulary_of_32000_decodes_with_default_configs() -> None:
    model = backup(vocab_size=32000, mask_id=31999)
    assert len(engine(model).generate([1, 2, 3])) == 100
    assert len(diffusion(model).generate([1, 2, 3])) == 103


def test_a_mask_that_is_not_the_models_is_refused() -> None:
    diffusion(eco()).generate(PROMPT, DiffusionGenerationConfig(mask_token_id=MASK))
    with pytest.raises(UsageError, match="mask_token_id=126336, but the model's mask is id 3"):
        diffusion(eco()).generate(PROMPT, DiffusionGenerationConfig(mask_token_id=126336))


def test_another_context_may_be_named() -> None:
    asked: Any = InferenceEngine.from_model(eco(), context="full")
    plan = Plan(max_new_tokens=11, steps=3, context="full")
    assert asked.generate(PROMPT, GREEDY) == finish(eco(), [PROMPT], plan).tokens[0]


def test_reset_cache_leaves_nothing_to_reset() -> None:
    asked = engine(eco())
    text = asked.generate(PROMPT, GREEDY)
    asked.generate([9, 9, 9], GREEDY)
    assert asked.generate(PROMPT, GREEDY) == text
    asked.reset_cache()
    assert asked.generate(PROMPT, GREEDY) == text


def test_benchmark_measures_runs_that_none_ends_early() -> None:
    model = Script(love=EOS)
    found = engine(model).benchmark(
        prompt_length=6, generate_length=10, warmup=1, runs=3, config=GenerationConfig(eos_token_id=EOS, block_size=4)
    )
    assert set(found) == {"prefill_ms", "decode_ms", "tokens_per_sec", "prefill_tokens", "decode_tokens"}
    assert (found["prefill_tokens"], found["decode_tokens"]) == (6, 10)
    assert min(found.values()) > 0
    assert len(model.began) == 2 * 4
    assert len(model.looked) == 4 * (2 + 4 + 4)  # 6 + 10 tokens in blocks of 4: 2 hidden, 4, 4; one a step
    prompts = [tuple(block[0].tolist()) for block in model.remembered if len(block) == 1][::3]
    assert MASK not in {token for prompt in prompts for token in prompt}
    assert len(set(prompts)) == 4


@pytest.mark.parametrize(
    "numbers", [{"prompt_length": -1}, {"generate_length": 0}, {"warmup": -1}, {"runs": 0}], ids=str
)
def test_a_benchmark_of_nothing_is_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must be at least"):
        engine(eco()).benchmark(**numbers)


def test_pte_files_are_told_apart_from_models() -> None:
    for make in (InferenceEngine.from_pte, DiffusionEngine.from_pte, lambda path: DiffusionEngine(pte_path=path)):
        with pytest.raises(ArtefactError, match=r"model\.pte: no such file"):
            make("model.pte")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: InferenceEngine(), "either a model or a pte_path"),
        (lambda: DiffusionEngine(model=eco(), pte_path="a.pte"), "either a model or a pte_path"),
        (lambda: engine(torch.nn.Linear(2, 2)), "Linear is not a Denoiser"),
        (lambda: engine(eco()).generate(torch.zeros(3)), "float32"),
        (lambda: engine(eco()).generate(torch.zeros(1, 1, 3, dtype=torch.long)), r"\(1, 1, 3\)"),
        (lambda: list(engine(eco()).generate_stream([[5], [6]])), "one prompt, not of 2"),
        (lambda: list(diffusion(eco()).generate_stream([[5], [6]])), "one prompt, not of 2"),
        (lambda: engine(eco()).generate([5, 48]), "the id 48"),
        (lambda: engine(Script()).generate([5], GenerationConfig(eos_token_id=VOCAB)), f"names the id {VOCAB}"),
        (lambda: GenerationConfig(stop_sequences=[[5], []]), "an empty one"),
        (lambda: engine(eco()).generate([5], GenerationConfig(repetition_penalty=0)), "repetition_penalty=0"),
        (lambda: engine(eco()).generate([5], GenerationConfig(block_size=0)), "block_size=0"),
        (lambda: diffusion(eco()).generate([5], DiffusionGenerationConfig(block_size=0)), "block_size=0"),
        (lambda: diffusion(eco()).generate([5], DiffusionGenerationConfig(num_iterations=0)), "steps=0"),
        (lambda: diffusion(eco()).generate([5], DiffusionGenerationConfig(confidence_threshold=2)), "threshold=2"),
        (lambda: get_sampler("beam"), "'beam' is not one of greedy"),
    ],
)
def test_nonsense_is_refused_with_its_value(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()


def test_a_model_is_put_where_it_is_asked_for_and_stops_training() -> None:
    model = eco().train()
    asked = InferenceEngine(model, device="meta")
    assert not model.training
    assert {str(p.device) for p in model.parameters()} == {"meta"} == {str(asked.device)}
    assert engine(eco()).device == torch.device("cpu")


def test_strategies_of_sampling_are_the_samplers_by_other_names() -> None:
    assert get_sampler() == get_sampler("greedy") == GreedySampler() == Greedy()
    assert get_sampler("top_k", k=7, temperature=0.5) == TopKSampler(7, 0.5) == Categorical(top_k=7, temperature=0.5)
    assert get_sampler("top_p") == TopPSampler() == Categorical(top_p=0.9)
    assert get_sampler("temperature", temperature=2.0) == TemperatureSampler(2.0) == Categorical(temperature=2.0)
    assert TopKSampler() == Categorical(top_k=50)


def test_the_rooms_are_silent_and_light_and_give_out_their_names() -> None:
    code = """
import sys, diffulex_edge.model as model, diffulex_edge.runtime as runtime
assert not {"torch", "numpy"} & set(sys.modules)
for room in (model, runtime):
    assert set(room._PUBLIC) <= set(dir(room))
    for name in room._PUBLIC:
        assert getattr(room, name).__name__ == name, name
    assert not hasattr(room, "nothing_of_this_name")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
