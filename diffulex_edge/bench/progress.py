"""A progress bar on standard error, in a terminal only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Advance = Callable[[int], None]


def quiet(n: int) -> None:
    """Advances nothing."""


@contextlib.contextmanager
def bar(label: str, total: int) -> Iterator[Advance]:
    """Gives a function to call with the amount of work just done."""
    if not sys.stderr.isatty():
        yield quiet
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda n: progress.advance(task, n)
