"""One spelling for what looks the same: the only place where text is changed before it is tokenised."""

from __future__ import annotations

import unicodedata

import regex

_SURROGATE = regex.compile(r"[\ud800-\udfff]")
_CONTROL = regex.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # \p{Cc} without tab and newline
_STORM = regex.compile(r"\P{Canonical_Combining_Class=0}{32,}")  # more marks on one letter than any language has


def normalize(text: str) -> str:
    """NFC, LF line ends, no control characters, U+FFFD for lone surrogates. Idempotent, and defined for every `str`.

    NFC takes U+0958..U+095F apart (composition exclusions), so both spellings of a nukta letter meet as letter +
    U+093C. ZWJ, ZWNJ, danda, anusvara and Devanagari digits stay: they carry spelling. NFKC is not used: it folds
    letters that a reader tells apart.
    """
    text = _SURROGATE.sub("\ufffd", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", _STORM.sub(_in_order, _CONTROL.sub("", text)))


def _in_order(marks: regex.Match[str]) -> str:
    """Marks in canonical order: NFC would put them so, in quadratic time: 40 s for 100,000 of them."""
    return "".join(sorted(marks[0], key=unicodedata.combining))
