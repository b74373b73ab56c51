"""What a harness is told, on denoisers whose right answers are known. None of this needs a harness."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from diffulex_edge.errors import UsageError
from diffulex_edge.integrations.answers import AnswerConfig, Answers, natural_context
from diffulex_edge.integrations.generation import Generation
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.sampler import Categorical, Greedy
from diffulex_edge.tests.bench_toys import FIRST, MASK, VOCAB, Chain, Letters, Toy, always, reader, uniform
from diffulex_edge.tests.toys import backup, eco

LETTERS = Letters()


def asked(answer, *, limit=None, **config):
    """A toy that is asked, and the toy."""
    toy = Toy(answer)
    toy.spec = replace(toy.spec, contexts=dict.fromkeys(toy.spec.contexts, limit))
    return Answers(toy, LETTERS, AnswerConfig(**config)), toy


def looks(toy):
    return [call for call in toy.calls if call["rows"].numel()]


def in_order(pairs):
    pairs = list(pairs)
    assert sorted(i for i, _ in pairs) == list(range(len(pairs)))
    return [answer for _, answer in sorted(pairs)]


def test_the_likelihood_of_a_chain_is_right_within_its_error():
    chain = Chain()
    documents = [ids for ids in chain.sample(200, seed=11)[0] if LETTERS.decode(ids)[1] != " "]
    pairs = [(LETTERS.decode(ids[:2]), LETTERS.decode(ids[2:])) for ids in documents]
    texts = np.array(documents) - FIRST
    truth = np.log(chain.transition[texts[:, 1:-1], texts[:, 2:]]).sum(1)
    answers, toy = asked(chain.posterior, samples=8, batch_tokens=600)
    excess = np.array([value for value, _ in in_order(answers.likelihoods(pairs))]) - truth
    stderr = excess.std(ddof=1) / np.sqrt(len(excess))
    assert abs(excess.mean()) < 3 * stderr
    assert stderr < 0.05 * -truth.mean()
    assert max(call["block"].numel() for call in toy.calls) <= 600


def test_a_continuation_of_one_token_is_exact_and_greedy_where_it_is_the_likeliest():
    chain = Chain()
    answers, toy = asked(chain.posterior, samples=128)
    told = in_order(answers.likelihoods([("कम", letter) for letter in LETTERS.letters]))
    expected = chain.transition[1]
    np.testing.assert_allclose([value for value, _ in told], np.log(expected), rtol=1e-5)
    assert [greedy for _, greedy in told] == (expected == expected.max()).tolist()
    assert sum(len(call["block"]) for call in looks(toy)) == 2 * 5  # for the likelihood, and for the greedy token


def test_one_who_knows_the_answer_finds_it():
    answers, _ = asked(reader, samples=64)
    questions = [("क", [" aba", "ab a", "ba b"]), ("म", ["b ab", "ab a", "    "])]
    for (question, choices), right in zip(questions, (1, 0), strict=True):
        told = in_order(answers.likelihoods([(question, choice) for choice in choices]))
        assert np.argmax([value for value, _ in told]) == right
        assert [greedy for _, greedy in told] == [i == right for i in range(3)]


def test_white_space_between_context_and_continuation_is_scored_with_the_continuation():
    answers, _ = asked(uniform)
    told = in_order(answers.likelihoods([("ab ", "a"), ("ab", " a"), ("", "aba"), ("ab", "")]))
    np.testing.assert_allclose([value for value, _ in told], np.log(5) * np.array([-2, -2, -3, 0]), rtol=1e-5)
    assert told[3] == (0.0, True)


def test_a_token_that_reaches_over_the_border_is_scored_whole():
    class Pairs(Letters):
        def encode(self, text):
            return super().encode(text.replace("ab", "म"))

    answers = Answers(Toy(uniform), Pairs(), AnswerConfig())
    assert in_order(answers.likelihoods([("क a", "b a")]))[0][0] == pytest.approx(-3 * np.log(5), rel=1e-5)


def test_a_context_that_is_too_long_loses_its_beginning_and_a_continuation_never_does():
    answers, toy = asked(uniform, limit=4, samples=2)
    in_order(answers.likelihoods([("कममम", "ab")]))
    scored = looks(toy)[0]["block"]  # the first look is the likelihood's
    assert scored.shape == (2, 4)
    assert (scored[:, :2] == FIRST + 1).all()
    with pytest.raises(UsageError, match="5 tokens passes the 4"):
        in_order(answers.likelihoods([("क", "ababa")]))


def test_a_whole_text_is_scored_in_windows_that_cover_it_once():
    answers, toy = asked(uniform, window=4, samples=3)
    told = in_order(answers.rolling(["ab ab ab a", "", "aba"]))
    np.testing.assert_allclose(told, -np.log(5) * np.array([10, 0, 3]), rtol=1e-5)
    assert {call["block"].shape[1] for call in toy.calls} == {4, 3}
    limited, toy = asked(uniform, limit=2, window=4)
    in_order(limited.rolling(["abab"]))
    assert {call["block"].shape[1] for call in toy.calls} == {2}


def test_text_ends_before_the_earliest_stop_and_decoding_ends_with_the_last_row():
    answers, toy = asked(reader, block_size=2, batch_size=3)
    stops = {"until": [" ", "b"], "max_gen_toks": 40}
    requests = [("क", stops), ("कम", {"until": "ab", "max_gen_toks": 40}), ("क", {"max_gen_toks": 4}), ("क", stops)]
    assert in_order(answers.continuations(requests)) == ["a", "b ", "ab a", "a"]
    assert sum(not call["rows"].numel() for call in toy.calls) < 20  # blocks taken in; without a stop there are 60


def test_prompts_of_different_lengths_are_continued_together_as_alone():
    prompts = ["क", "ab ab", "कम", "aa", "म"]
    requests = [(prompt, {"max_gen_toks": 5}) for prompt in prompts]
    together = in_order(asked(reader, batch_size=5)[0].continuations(requests))
    assert together == in_order(asked(reader, batch_size=1)[0].continuations(requests))
    assert together == ["ab ab", " ab a", "b ab ", "b ab ", "b ab "]


def test_prompts_of_like_length_share_a_batch():
    answers, toy = asked(reader, batch_size=2)
    toy.begun.clear()
    in_order(answers.continuations([(prompt, {"max_gen_toks": 5}) for prompt in ("क", "ab ab", "म", "ba ab")]))
    assert [length for _, length in toy.begun if length != Plan.block_size] == [6, 10]


def test_a_space_that_the_prompt_has_is_not_written_again():
    requests = [(prompt, {"max_gen_toks": 5}) for prompt in ("ab", "ab ")]
    assert in_order(asked(reader)[0].continuations(requests)) == [" ab a", "ab a"]


def test_a_block_takes_the_steps_that_are_asked_for():
    for steps in (1, 4):
        answers, toy = asked(reader, steps=steps, block_size=4)
        in_order(answers.continuations([("क", {"max_gen_toks": 8})]))
        assert len(looks(toy)) == 2 * steps


@pytest.mark.parametrize("kind", ["canvas", "kv"])
def test_a_prompt_that_is_too_long_loses_its_beginning(kind):
    """Where blocks are aligned the canvas is padded to whole blocks, so that one of them may not be there."""
    denoiser: Any = Toy(reader) if kind == "canvas" else backup(block_length=4, vocab_size=VOCAB)
    begin, begun = denoiser.begin, []

    def noted(kind, batch_size, length, first=None):
        begun.append(length)
        return begin(kind, batch_size, length, first)

    denoiser.begin = noted
    denoiser.spec = replace(denoiser.spec, contexts={kind: 10})
    answers = Answers(denoiser, LETTERS, AnswerConfig(block_size=4))
    [text] = in_order(answers.continuations([("aaaaaaaaaaaaक", {"max_gen_toks": 5})]))
    assert max(begun) <= 10
    assert kind == "kv" or text == "ab ab"
    with pytest.raises(UsageError, match="10 new tokens leave no room"):
        in_order(answers.continuations([("क", {"max_gen_toks": 10})]))


def test_draws_differ_between_repeats_and_agree_between_runs():
    requests = [("क", {"max_gen_toks": 12, "do_sample": True, "temperature": 1.0})] * 3
    first, again = (in_order(asked(uniform)[0].continuations(requests)) for _ in range(2))
    assert first == again
    assert len(set(first)) == 3
    assert first != in_order(asked(uniform, seed=1)[0].continuations(requests))


def test_the_same_question_has_the_same_answer_in_any_company():
    chain = Chain()
    pairs = [("कम", "ab"), ("कम", " मa"), ("aa", "bbक")]
    told = in_order(asked(chain.posterior, samples=4)[0].likelihoods(pairs))
    for pair, answer in zip(pairs, told, strict=True):
        alone = in_order(asked(chain.posterior, samples=4)[0].likelihoods([pair]))[0]
        assert answer == pytest.approx(alone, rel=1e-5)


def test_generation_settings_are_read_as_lm_eval_means_them():
    assert Generation.read({}) == Generation()
    assert Generation.read({"until": "x", "max_new_tokens": 3}) == Generation(until=("x",), max_new_tokens=3)
    assert Generation.read({"max_gen_toks": 2, "max_tokens": 9}).max_new_tokens == 2
    assert Generation.read({"temperature": 0.7}).sampler == Categorical(temperature=0.7)
    assert Generation.read({"do_sample": False, "temperature": 0.7}).sampler == Greedy()
    assert Generation.read({"do_sample": True, "temperature": 1, "top_k": 5, "top_p": 0.5}).sampler == Categorical(
        temperature=1.0, top_k=5, top_p=0.5
    )
    assert Generation.read({"until": ["", "b", "a"]}).cut("xxab") == "xx"
    with pytest.warns(UserWarning, match="num_beams"):
        Generation.read({"num_beams": 4})
    with pytest.raises(UsageError, match="max_gen_toks=0"):
        Generation.read({"max_gen_toks": 0})


def test_models_are_asked_in_the_context_that_is_natural_to_them():
    assert natural_context(eco().spec) == "canvas"
    assert natural_context(backup().spec) == "canvas"
    assert natural_context(backup(block_length=4).spec) == "kv"
    assert natural_context(Toy(uniform, ("memory", "full")).spec) == "full"
    assert natural_context(Toy(uniform, ("memory",)).spec) == "memory"


@pytest.mark.parametrize("context", ["canvas", "full", "memory", None])
def test_every_context_answers_every_kind_of_question(context):
    """None is what a block-causal model is asked in by itself: its own context, in blocks of its own length."""
    denoiser = eco(vocab_size=VOCAB) if context else backup(block_length=5, vocab_size=VOCAB)
    config = AnswerConfig(context=context, block_size=4 if context else None, samples=2, steps=2)
    answers = Answers(denoiser, LETTERS, config)
    told = in_order(answers.likelihoods([("क", "ab ab a"), ("कमकमक", "a"), ("", "ab")]))
    assert all(value < 0 for value, _ in told)
    assert in_order(answers.rolling(["ab ab ab ab"]))[0] < 0
    [text] = in_order(answers.continuations([("कम ab", {"max_gen_toks": 6})]))
    assert len(text) <= 6


def test_nonsense_is_refused():
    for wrong in ({"samples": 0}, {"steps": "many"}, {"seed": -1}, {"seed": 1 << 32}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            AnswerConfig(**wrong)
    with pytest.raises(UsageError, match="kv"):
        Answers(eco(vocab_size=VOCAB), LETTERS, AnswerConfig(context="kv"))
    assert MASK not in LETTERS.encode("ab")
    assert in_order(asked(always(FIRST + 3))[0].continuations([("क", {"max_gen_toks": 3})])) == ["aaa"]
