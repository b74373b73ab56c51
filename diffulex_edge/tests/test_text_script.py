"""Scripts of spans and texts; words in the wrong script; spellings that Devanagari does not have."""

from __future__ import annotations

import itertools

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from diffulex_edge.api import locate
from diffulex_edge.text.script import Rate, Span, foreign_ids, ill_formed, script_errors, script_of, spans
from diffulex_edge.text.tokenizer import load_tokenizer

MIXED_TEXT = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("कखि्ा़ंab é\u200d\u200c\u0301।.1 தΩ")), max_size=40
)


@given(MIXED_TEXT)
def test_spans_cover_the_text_and_cut_no_cluster(text: str) -> None:
    found = spans(text)
    assert "".join(text[span.start : span.end] for span in found) == text
    assert all(
        before.end == after.start and before.script != after.script for before, after in itertools.pairwise(found)
    )
    borders = {match.start() for match in regex.finditer(r"\X", text)}
    assert all(span.start in borders for span in found)


def test_what_belongs_to_every_script_joins_its_neighbour() -> None:
    text = "  मैं, 5 office (जी)!"
    assert [(text[s.start : s.end], s.script) for s in spans(text)] == [
        ("  मैं, 5 ", "devanagari"),
        ("office (", "latin"),
        ("जी)!", "devanagari"),
    ]
    assert spans("12 ?") == [Span(0, 4, "other")]
    assert spans("") == []
    assert [s.script for s in spans("a தமிழ் क")] == ["latin", "other", "devanagari"]


def test_a_cluster_has_the_script_of_its_base() -> None:
    assert spans("aि") == [Span(0, 2, "latin")]
    assert spans("e\u0301क्\u200dष") == [Span(0, 2, "latin"), Span(2, 6, "devanagari")]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("मैं कल बाज़ार गया।", "devanagari"),
        ("mai kal bazaar gaya tha", "roman"),
        ("मैं office जा रहा हूँ", "mixed"),
        ("यह एक लंबा वाक्य है जिसमें केवल एक ही शब्द PC है", "devanagari"),
        ("123 ...", "other"),
        ("", "other"),
        ("தமிழ்", "other"),
    ],
)
def test_the_script_of_a_text(text: str, script: str) -> None:
    assert script_of(text) == script


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("मैं घर गया।", "वह कल", Rate(0, 3)),
        ("मैं office गया।", "वह कल", Rate(1, 3)),
        ("main घर gaya 12!", "kal woh", Rate(1, 3)),
        ("मैं office गया", "वह office", Rate(0, 3)),  # a mixed prompt asks for nothing
        ("मैं offiसce गया", "वह office", Rate(1, 3)),  # but a word is in one script
        ("kaखg", "kal", Rate(1, 1)),
        ("दिन தமிழ்", "वह कल", Rate(1, 2)),
        ("घर तो café", "123", Rate(0, 3)),
        ("क्\u200dष e\u0301", "कल", Rate(1, 2)),
        ("12 . ,", "कल", Rate(0, 0)),
    ],
)
def test_words_in_the_wrong_script_are_counted(text: str, prompt: str, expected: Rate) -> None:
    assert script_errors(text, prompt) == expected


WELL_FORMED = [
    "क्या", "हिन्दी", "ज़िंदगी", "महान्", "अॅप", "दुःख", "ॐ", "हँसी", "क्\u200dष", "श्री\u200cमान", "पढ़ाई", "ऑफ़िस", "गईं", "कॉफ़ी",
    "लड़कियाँ", "ड़्राइवर", "संस्कृत", "ऋषि", "अंतः", "क॒", "नई",
]  # fmt: skip
ILL_FORMED = ["ों", "िक", "ंकर", "्क", "काि", "मेेज", "क्ि", "शंात", "दोैलत", "क्ा", "क््य", "गु़स्सा", "बडे़", "जाऊँँ", "अ्", "इ़"]


@pytest.mark.parametrize("word", WELL_FORMED)
def test_a_word_as_it_is_written_is_well_formed(word: str) -> None:
    assert ill_formed(word) == Rate(0, 1)


@pytest.mark.parametrize("word", ILL_FORMED)
def test_a_sign_that_can_belong_to_nothing_is_ill_formed(word: str) -> None:
    assert ill_formed(f"घर {word}, abc").errors == 1


def test_only_devanagari_words_are_judged() -> None:
    assert ill_formed("abc 12 தி e\u0301") == Rate(0, 0)
    assert ill_formed("घर ों").rate == 0.5
    assert Rate(0, 0).rate == 0.0


def test_the_ids_that_a_script_has_no_use_for_are_those_with_foreign_letters() -> None:
    tokenizer = load_tokenizer(locate("aria-hindi-tiny"))
    hindi, roman = set(tokenizer.encode("मैं कल बाज़ार गया")), set(tokenizer.encode("main kal office gaya"))
    shared = set(tokenizer.encode("12, ? ( । 🙂\n"))
    for script, own, other in (("devanagari", hindi, roman), ("roman", roman, hindi)):
        foreign = set(foreign_ids(tokenizer, script))
        assert not foreign & (own | shared | {tokenizer.eos_id, tokenizer.mask_id})
        assert all(i in foreign for i in other if tokenizer.decode([i]).strip())
        kept = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size) if i not in foreign]
        assert not any(script_errors(piece, {"devanagari": "क", "roman": "a"}[script]).errors for piece in kept)
    assert foreign_ids(tokenizer, "mixed") == foreign_ids(tokenizer, "other") == ()
