"""Standard output and error: whole letters in any locale, and work that goes on when nobody reads any more."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from diffulex_edge.cli.streams import Patient, settle


def test_what_is_said_to_a_reader_who_left_is_lost_and_the_work_goes_on() -> None:
    reader, writer = os.pipe()
    with Patient(os.fdopen(writer, "wb"), "utf-8", line_buffering=True) as stream:
        os.close(reader)
        for _ in range(3):
            print("नमस्ते", file=stream)
        stream.write("x" * 1_000_000)
        stream.flush()


def test_both_outputs_speak_utf8_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, bytes_of in raw.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(bytes_of, "ascii", line_buffering=True))
    settle()
    print("एक \udc80")
    print("दो", file=sys.stderr)
    assert raw["stdout"].getvalue() == "एक \\udc80\n".encode()
    assert raw["stderr"].getvalue() == "दो\n".encode()
    assert sys.stdout.line_buffering


def test_streams_that_our_caller_closed_are_open_again_and_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    settle()
    print("nobody hears this")
    print("nor this", file=sys.stderr)
    assert sys.stdin.buffer.read() == b""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()
