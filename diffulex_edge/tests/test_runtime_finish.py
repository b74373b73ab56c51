"""Running a stream to its end without holding what came before."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from diffulex_edge.runtime.decode import Finished, finish


class Watched:
    """Stands for a draft, with the logits of its step."""


def test_the_end_of_a_stream_is_had_without_keeping_the_drafts_before_it() -> None:
    alive: weakref.WeakSet[Watched] = weakref.WeakSet()
    most = 0

    def events() -> Iterator[Any]:
        nonlocal most
        for _ in range(9):
            draft = Watched()
            alive.add(draft)
            yield draft
            del draft
            most = max(most, len(alive))
        yield Finished([[1]], [[1]], 9, 0)

    assert finish(events()).forwards == 9
    assert 0 < most <= 2
