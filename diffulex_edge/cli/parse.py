"""Flags in, JSON out: tyro over a frozen dataclass, with its boxed complaints folded into one line."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich.console import Console

from diffulex_edge.cli.aliases import translate
from diffulex_edge.errors import ResourceError, UsageError
from diffulex_edge.files import check_writable, write_atomic

F = TypeVar("F")
MARKERS = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
BOX = re.compile(r"[\u2500-\u257f]+")
CLASS = re.compile(r"^Error parsing [A-Za-z]\w*: ")  # a dataclass says which it is; nobody asked


def parse(flags: type[F], argv: Sequence[str], *, prog: str, default: F | None = None) -> F:
    """Reads flags, `--data_dir` and `--data-dir` alike; `--help` prints and exits; nonsense raises UsageError.

    default: what flags that are not given are, instead of the class's own defaults.
    """
    words, said = translate(argv), io.StringIO()
    start: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with redirect_stderr(said):
            return tyro.cli(flags, args=words, prog=prog, config=MARKERS, use_underscores=True, **start)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(one_line(said.getvalue()) + f"; see {prog} --help") from None


def one_line(box: str) -> str:
    """From a boxed complaint of tyro: its first paragraph, without frame, title and line breaks."""
    rows = [BOX.sub(" ", row).strip() if row.startswith("│") else row.strip() for row in box.splitlines()]
    said: list[str] = []
    for row in rows[1:]:
        if not row or BOX.match(row):
            break
        said.append(row)
    return CLASS.sub("", " ".join(said).replace(" .", ".").rstrip(". "))


def check_place(where: str | Path | None) -> None:
    """Raises UsageError before the work where writing its result there would fail after it. `-`: standard output."""
    if where is not None and where != "-":
        check_writable(where)


def report(result: Any, where: str | None) -> None:
    """Writes a verb's result as JSON to the file `where`, or to standard output for `-`; None: nowhere.

    Where the file cannot be written after all, the result goes to standard output before the error is told.
    """
    if where is None:
        return
    text = json.dumps(result, ensure_ascii=False, indent=2, default=str) + "\n"
    if where == "-":
        print(text, end="", flush=True)
        return
    try:
        write_atomic(Path(where), text.encode(errors="backslashreplace"))
    except (OSError, ResourceError):
        print(text, end="", flush=True)
        raise


def console(where: str | None) -> Console:
    """Where a verb prints for people: standard output, or standard error when that is taken by `--json -`."""
    return Console(stderr=where == "-", highlight=False, soft_wrap=True)
