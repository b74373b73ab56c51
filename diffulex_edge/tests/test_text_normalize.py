"""The normaliser: one spelling for what looks the same, and nothing else changed."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffulex_edge.text.normalize import _STORM, _in_order, normalize

# Everything, with what matters here made frequent: nukta, virama, joiners, controls, line ends, surrogates.
ANY_TEXT = st.text(
    st.one_of(
        st.characters(codec=None), st.sampled_from("\u0958कक\u093c\u094d\u200c\u200d\r\n\x00\t\u0301\u0323\ud800\udc00")
    )
)


@given(ANY_TEXT)
def test_it_is_idempotent(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    once.encode("utf-8")


@given(st.text(st.sampled_from("aक\u0301\u0323\u0345\u0344\u093c\u094d\u0f71\u1e63"), max_size=60))
def test_it_is_nfc_also_where_marks_pile_up(text: str) -> None:
    storm = text + "\u0323\u0301\u093c\u094d" * 12 + text
    assert normalize(storm) == unicodedata.normalize("NFC", storm)


def test_both_spellings_of_a_nukta_letter_meet() -> None:
    assert normalize("\u0958\u0932\u092e") == normalize("\u0915\u093c\u0932\u092e") == "\u0915\u093c\u0932\u092e"
    assert normalize("\u095b\u0930\u093e") == "\u091c\u093c\u0930\u093e"


@pytest.mark.parametrize("text", ["क्\u200dष", "क्\u200cष", "राम।", "राम॥", "हंस हँस", "१२३ 123", "a|b", "ﬁ①", "\ta  b \n"])
def test_what_carries_spelling_stays(text: str) -> None:
    assert normalize(text) == text


def test_line_ends_and_control_characters() -> None:
    assert normalize("a\r\nb\rc\n") == "a\nb\nc\n"
    assert normalize("a\x00b\x1bc\x7fd\x85e\tf") == "abcde\tf"


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    assert normalize("क\ud800\udfffख") == "क\ufffd\ufffdख"


def test_a_storm_of_marks_reaches_nfc_in_canonical_order_already() -> None:
    """Two hundred marks are enough for the equality; NFC alone is quadratic in them, 40 s for a hundred thousand."""
    storm = "a" + "\u0301\u0323" * 100
    assert normalize(storm) == unicodedata.normalize("NFC", storm)
    assert _in_order(_STORM.search(storm)) == "\u0323" * 100 + "\u0301" * 100
