"""The generated text: its probabilities and its entropy are exact, and its Hindi agrees."""

from __future__ import annotations

import math
import random

import pytest

from diffulex_edge.text import demo
from diffulex_edge.text.demo import SCRIPT_SHARES, demo_documents, entropy_per_char, log_prob
from diffulex_edge.text.demo_words import frame
from diffulex_edge.text.grammar import Chain, Choice, Leaf, probabilities, words
from diffulex_edge.text.normalize import normalize
from diffulex_edge.text.script import ill_formed, script_errors, script_of

BITS = 1 / math.log(2)


def every_sentence() -> dict[str, list[tuple[str, float]]]:
    return {script: list(demo.sentences(script).strings()) for script in SCRIPT_SHARES}


@pytest.fixture(scope="module")
def sentences() -> dict[str, list[tuple[str, float]]]:
    return every_sentence()


def test_no_sentence_has_two_derivations_in_any_script(sentences: dict[str, list[tuple[str, float]]]) -> None:
    spelt = [text for each in sentences.values() for text, _ in each]
    assert len(spelt) > 150_000
    assert len(set(spelt)) == len(spelt)
    assert all(text[-1] in "।.?" and not set("।.?\n") & set(text[:-1]) for text in spelt), (
        "documents come apart in one way"
    )


@pytest.mark.parametrize("script", SCRIPT_SHARES)
def test_the_probabilities_of_all_sentences_sum_to_one(
    script: str, sentences: dict[str, list[tuple[str, float]]]
) -> None:
    assert math.fsum(p for _, p in sentences[script]) == pytest.approx(1, abs=1e-12)
    assert {text for text, _ in sentences[script]} >= {
        demo.sentences(script).draw(random.Random(i)) for i in range(300)
    }


@pytest.mark.parametrize("script", SCRIPT_SHARES)
def test_entropy_and_length_are_those_of_the_enumeration(
    script: str, sentences: dict[str, list[tuple[str, float]]]
) -> None:
    node = demo.sentences(script)
    assert node.entropy == pytest.approx(-math.fsum(p * math.log(p) for _, p in sentences[script]), rel=1e-12)
    assert node.length == pytest.approx(math.fsum(p * len(text) for text, p in sentences[script]), rel=1e-12)


def test_a_small_grammar_by_hand() -> None:
    node = Chain([Choice([(3, Leaf("a")), (1, words({"b": 1, "bc": 1}))]), words({"d": 1, "cd": 3})])
    expected = {"ad": 3 / 16, "acd": 9 / 16, "bd": 1 / 32, "bcd": 3 / 32 + 1 / 32, "bccd": 3 / 32}  # bcd in two ways
    assert probabilities(node) == pytest.approx(expected)
    assert node.length == pytest.approx(0.75 + 0.25 * 1.5 + 0.25 + 0.75 * 2)
    choice, ending = -0.75 * math.log(0.75) - 0.25 * math.log(0.125), -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert node.entropy == pytest.approx(choice + ending)
    rng = random.Random(0)
    drawn = [node.draw(rng) for _ in range(4000)]
    assert {text: drawn.count(text) / 4000 for text in expected} == pytest.approx(expected, abs=0.03)


def test_the_mean_surprise_of_samples_is_the_entropy() -> None:
    """Ratio estimator over whole documents; 3 standard errors."""
    documents = list(demo_documents(400, seed=11))
    bits = [-log_prob(document.text) * BITS for document in documents]
    chars = [len(document.text) for document in documents]
    mean = sum(bits) / sum(chars)
    residual = [b - mean * c for b, c in zip(bits, chars, strict=True)]
    stderr = math.sqrt(sum(r * r for r in residual)) / sum(chars)
    assert stderr < 0.01
    assert abs(mean - entropy_per_char()) < 3 * stderr


def test_the_entropy_is_a_mean_over_the_scripts() -> None:
    """By hand: bits and characters of a document of each script, and one bit-count more for the script itself."""
    n = 1 / demo.STOP
    lengths = {script: n * demo.sentences(script).length + n - 1 for script in SCRIPT_SHARES}
    bits = {script: (entropy_per_char(script) * length) for script, length in lengths.items()}
    choice = -sum(p * math.log2(p) for p in SCRIPT_SHARES.values())
    expected = (choice + sum(SCRIPT_SHARES[s] * bits[s] for s in bits)) / sum(
        SCRIPT_SHARES[s] * lengths[s] for s in bits
    )
    assert entropy_per_char() == pytest.approx(expected, rel=1e-12)
    assert 0.3 < entropy_per_char() < 1


def test_documents_are_the_same_for_the_same_seed_and_any_number() -> None:
    assert list(demo_documents(5, seed=1)) == list(demo_documents(9, seed=1))[:5]
    assert list(demo_documents(5, seed=1)) != list(demo_documents(5, seed=2))
    assert list(demo_documents(0)) == []


def test_documents_are_normalised_and_in_the_script_they_say() -> None:
    for document in demo_documents(60, seed=4):
        assert normalize(document.text) == document.text
        assert ill_formed(document.text).errors == 0
        assert script_errors(document.text, "कल" if document.script == "devanagari" else "a क").errors == 0
        assert document.script == "mixed" or script_of(document.text) == document.script
        assert log_prob(document.text) > -math.inf


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("सीता रोज़ बाज़ार जाती है।", "सीता रोज़ बाज़ार जाता है।"),
        ("बच्चे रोज़ बाज़ार जाते हैं।", "बच्चे रोज़ बाज़ार जाते है।"),
        ("मैं रोज़ बाज़ार जाती हूँ।", "मैं रोज़ बाज़ार जाती है।"),
        ("रवि ने कल बाज़ार से किताब खरीदी।", "रवि ने कल बाज़ार से किताब खरीदा।"),
        ("सीता ने कल बाज़ार से जूते खरीदे।", "सीता ने कल बाज़ार से जूते खरीदी।"),
        ("लड़के ने कल बाज़ार से पंखा खरीदा।", "लड़का ने कल बाज़ार से पंखा खरीदा।"),
        ("मेरी बहन दिल्ली में रहती है।", "मेरा बहन दिल्ली में रहती है।"),
        ("रवि अपनी बहन के साथ घर जाता है।", "रवि अपने बहन के साथ घर जाता है।"),
        ("mujhe purani kitab chahiye.", "mujhe purana kitab chahiye."),
        ("सीता office कब जाएगी?", "सीता office कब जाएगा?"),
        ("ravi kal dilli se aaya.", "ravi kal dilli se aayi."),
    ],
)
def test_gender_number_and_case_agree(right: str, wrong: str) -> None:
    assert log_prob(right) > -math.inf
    assert log_prob(wrong) == -math.inf


def test_a_word_that_stands_for_two_counts_twice() -> None:
    """The I of a man and of a woman look alike in the dative: one string, twice as likely."""
    said = probabilities(demo.sentences("devanagari"))
    assert said["मुझे गाना गाना अच्छा लगता है।"] == pytest.approx(2 * said["हमें गाना गाना अच्छा लगता है।"])
    assert said["मैं गाना गा रही हूँ।"] == pytest.approx(said["हम गाना गा रहे हैं।"])


def test_a_document_is_scored_by_its_parts() -> None:
    one, two = "आज रवि का जन्मदिन है।", "आज सीता का जन्मदिन है।"
    given = probabilities(demo.sentences("devanagari"))
    start = SCRIPT_SHARES["devanagari"]
    go_on = 1 - demo.STOP
    assert log_prob(one) == pytest.approx(math.log(start * given[one] * demo.STOP))
    for joint, share in demo.JOINTS.items():
        expected = start * given[one] * go_on * share * given[two] * demo.STOP
        assert log_prob(one + joint + two) == pytest.approx(math.log(expected))


@pytest.mark.parametrize(
    "text", ["", " ", "आज", "आज रवि का जन्मदिन है। ", " आज रवि का जन्मदिन है।", "आज रवि का जन्मदिन है।आज रवि का जन्मदिन है।"]
)
def test_what_the_grammar_cannot_say_has_no_probability(text: str) -> None:
    assert log_prob(text) == -math.inf


def test_an_english_loan_is_in_latin_letters_where_scripts_mix() -> None:
    spelt = [frame("{city} की ट्रेन कब आएगी?", column, ".").draw(random.Random(0)) for column in range(3)]
    assert spelt[2].split()[2] == spelt[1].split()[2] == "train"
    assert spelt[2].split()[0] == spelt[0].split()[0]
