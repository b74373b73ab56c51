"""Which script a text is in, by Unicode's Script property, and two rates: wrong script, impossible spelling.

Scripts of a text: devanagari, roman, mixed, other. Scripts of a span: devanagari, latin, other.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import regex

from diffulex_edge.text.tokenizer import Tokenizer

SCRIPTS = ("devanagari", "roman", "mixed", "other")
_LETTERS = {"devanagari": "devanagari", "roman": "latin"}  # script of the spans of a text that keeps to one
LESSER = 0.15  # of the letters and signs: from here on the lesser of the two scripts makes a text mixed

_DEVANAGARI = regex.compile(r"\p{Script=Devanagari}")
_LATIN = regex.compile(r"[\p{Script=Latin}&&\p{L}]", regex.V1)
_JOINS = regex.compile(
    r"[\p{Script=Common}\p{Script=Inherited}]"
)  # digits, punctuation, marks, joiners: of no script by themselves
_CLUSTER = regex.compile(r"\X")
_WORD = regex.compile(r"[\p{L}\p{M}\u200c\u200d]*\p{L}[\p{L}\p{M}\u200c\u200d]*")
_DEVANAGARI_WORD = regex.compile(
    r"[\p{Script=Devanagari}&&[\p{L}\p{M}]][[\p{Script=Devanagari}&&[\p{L}\p{M}]]\u200c\u200d]*", regex.V1
)
_JOINERS = regex.compile(r"[\u200c\u200d]")

# What each sign of Devanagari may follow, without joiners. C consonant, V any letter, M dependent vowel sign.
_C = r"[\u0915-\u0939\u0958-\u095f\u0978-\u097f]"
_V = r"[\u0904-\u0939\u0950\u0958-\u0961\u0972-\u097f]"
_M = r"[\u093a\u093b\u093e-\u094c\u094e\u094f\u0955-\u0957\u0962\u0963]"
_ILL_FORMED = regex.compile(
    rf"(?<!{_C})\u093c"  # a nukta follows a consonant
    rf"|(?<!{_C}|\u093c)\u094d"  # a virama follows a consonant, with or without nukta
    rf"|(?<!{_V}|\u093c){_M}"  # a vowel sign follows a letter: no two in a row, none after a virama or an anusvara
    rf"|(?<!{_V}|\u093c|{_M})[\u0900-\u0903]"  # candrabindu, anusvara, visarga follow a letter or its vowel sign
)


@dataclass(frozen=True)
class Span:
    """text[start:end] is in one script: "devanagari", "latin", or "other"."""

    start: int
    end: int
    script: str


@dataclass(frozen=True)
class Rate:
    """How many of how many."""

    errors: int
    total: int

    @property
    def rate(self) -> float:
        """0 where there is nothing to count."""
        return self.errors / self.total if self.total else 0.0


def spans(text: str) -> list[Span]:
    """Cuts a text into runs of one script. They cover it without gaps, and no grapheme cluster (\\X) is cut.

    What belongs to every script (spaces, digits, punctuation) goes with the run before it, or with the first run at
    the very start.
    """
    found: list[Span] = []
    start = 0
    script: str | None = None
    for cluster in _CLUSTER.finditer(text):
        here = _script_of_cluster(cluster[0])
        if here is None or here == script:
            continue
        if script is not None:
            found.append(Span(start, cluster.start(), script))
            start = cluster.start()
        script = here
    return [*found, Span(start, len(text), script or "other")] if text else []


@functools.lru_cache(maxsize=1 << 14)
def _script_of_cluster(cluster: str) -> str | None:
    """The script of the first character that has one; None if none has."""
    if cluster.isascii():
        return "latin" if cluster.isalpha() else None
    for char in cluster:
        if _DEVANAGARI.match(char):
            return "devanagari"
        if _LATIN.match(char):
            return "latin"
        if not _JOINS.match(char):
            return "other"
    return None


def script_of(text: str) -> str:
    """Of a whole text: "devanagari", "roman", "mixed" (the lesser has LESSER of the letters or more), or "other"."""
    devanagari, latin = len(_DEVANAGARI.findall(text)), len(_LATIN.findall(text))
    if devanagari + latin == 0:
        return "other"
    if min(devanagari, latin) >= LESSER * (devanagari + latin):
        return "mixed"
    return "devanagari" if devanagari > latin else "roman"


def script_errors(text: str, prompt: str) -> Rate:
    """The share of words of `text` not in the script of `prompt`. A word is a run of letters, marks and joiners.

    A word with Devanagari and Latin letters inside is always an error. For a prompt in both scripts, or in neither,
    nothing else is. No word is forgiven as a known loan: text with such words in it has a rate of its own to compare
    with.
    """
    wanted = _LETTERS.get(script_of(prompt))
    words = _WORD.findall(text)
    return Rate(sum(_is_wrong(word, wanted) for word in words), len(words))


def foreign_ids(tokenizer: Tokenizer, script: str) -> tuple[int, ...]:
    """Ids with a letter in them that a text in this script, one of SCRIPTS, has none of: for `Plan.banned`.

    None for "mixed" and "other". A letter outside ASCII can still be spelt by its bytes, which are not told apart.
    """
    wanted = _LETTERS.get(script)
    if wanted is None:
        return ()
    return tuple(i for i in range(tokenizer.vocab_size) if _scripts_in(tokenizer.decode([i])) - {wanted})


def token_scripts(tokenizer: Tokenizer) -> list[int]:
    """Of each id: 1 where its text has Devanagari letters alone, 2 where it has Latin ones alone, else 0."""
    alone = {frozenset((name,)): number for number, name in enumerate(_LETTERS.values(), 1)}
    ids = range(tokenizer.vocab_size)
    return [alone.get(frozenset(_scripts_in(tokenizer.decode([i]))), 0) for i in ids]


def _is_wrong(word: str, wanted: str | None) -> bool:
    inside = _scripts_in(word)
    if {"devanagari", "latin"} <= inside:
        return True
    return wanted is not None and bool(inside - {wanted})


def _scripts_in(text: str) -> set[str]:
    return {script for char in text if (script := _script_of_cluster(char)) is not None}


def ill_formed(text: str) -> Rate:
    """The share of Devanagari words that no one could write: a sign that follows nothing it can belong to.

    The rules stand at _ILL_FORMED: a word must not begin with a sign; nukta and virama need a consonant, a vowel sign
    needs a letter (a letter, since अ + candra e is a Hindi spelling of English "a"), and so on. A virama at the end
    of a word is not counted: it is right in महान्. Vedic accents and joiners are passed over.
    """
    words = _DEVANAGARI_WORD.findall(text)
    return Rate(sum(_ILL_FORMED.search(_JOINERS.sub("", word)) is not None for word in words), len(words))
