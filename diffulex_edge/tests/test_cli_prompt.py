"""What may be handed in as a prompt."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from diffulex_edge.cli.prompt import MAX_CHARS, read_prompt
from diffulex_edge.errors import UsageError


def test_a_plain_prompt_comes_back_as_it_is() -> None:
    assert read_prompt(" मैं कल\n") == " मैं कल\n"
    assert len(read_prompt("क" * MAX_CHARS)) == MAX_CHARS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("\x01 \x7f", "empty"),
        ("क" * (MAX_CHARS + 1), "65,537 characters"),
        ("ab\udcff", "not valid UTF-8 at character 2"),
        ("a [MASK] b", r"\[MASK\]"),
        ("a </s>", "</s>"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_prompt(text)


def test_a_stroke_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("नमस्ते".encode())))
    assert read_prompt("-") == "नमस्ते"


def test_invalid_bytes_on_standard_input_are_refused_with_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"ab\xff")))
    with pytest.raises(UsageError, match="byte 2"):
        read_prompt("-")


def test_a_mark_of_the_byte_order_is_no_part_of_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"\xef\xbb\xbfa")))
    assert read_prompt("-") == "a"


def test_a_word_is_read_as_utf8_whatever_the_locale_took_it_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsencode", lambda word: word.encode("latin-1", "surrogateescape"))
    assert read_prompt("दिन".encode().decode("latin-1")) == "दिन"
    assert read_prompt("caf\u00e9") == "café", "bytes that are no UTF-8 are what the locale says"
    monkeypatch.setattr("os.fsencode", lambda word: word.encode("ascii", "surrogateescape"))
    assert read_prompt("दिन".encode().decode("ascii", "surrogateescape")) == "दिन"
    assert read_prompt("दिन") == "दिन"
