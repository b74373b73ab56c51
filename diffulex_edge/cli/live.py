"""The denoising as it happens: text that fills up, each letter in the colour of the model's confidence in it.

Whole lines are redrawn, letters (grapheme clusters) stay whole: a terminal joins Devanagari as it likes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import groupby

import regex
from rich.console import Console
from rich.live import Live
from rich.text import Text

from diffulex_edge.runtime.decode import Committed, Draft, Event, Finished
from diffulex_edge.text.tokenizer import Tokenizer

LEVELS = ((0.9, "green"), (0.6, "cyan"), (0.3, "yellow"), (0.0, "red"))  # probability when shown, at least; colour
HIDDEN, SHADE = "░", "bright_black"
TAIL = 600  # characters of finished text that stay in view
Line = list[tuple[str, str | None]]  # pieces of text and their colours; None: what was given or is finished


class View:
    """Follows the first row of the events, and tells how it looks after each."""

    def __init__(self, tokenizer: Tokenizer, prompt: list[int], *, shown: int = 0) -> None:
        self.tokenizer, self.ids, self.shown = tokenizer, list(prompt), shown  # `shown`: the first column in view
        self.sure: dict[int, float] = {}  # column -> probability of the token shown there, in the block at work
        self.frames: list[Line] = []

    def see(self, event: Event) -> None:
        if isinstance(event, Finished):
            return
        self.ids[event.start : event.start + event.block.shape[1]] = event.block[0].tolist()
        if isinstance(event, Draft):
            shown = zip(event.guess.hidden[0].nonzero()[:, 0].tolist(), event.guess.probability.tolist(), strict=False)
            self.sure.update(shown)
            before = (self.tokenizer.decode(self.ids[self.shown : event.start])[-TAIL:], None)
            self.frames.append([before, *self._block(event.start, event.asked[0].tolist())])
        elif isinstance(event, Committed):
            self.sure = {}

    def _block(self, start: int, asked: list[bool]) -> Line:
        """The block as it stands, hidden tokens as a shade each; what is neither asked for nor given is padding."""
        line, mask, seen = Line(), self.tokenizer.mask_id, range(max(self.shown - start, 0), len(asked))
        columns = [(i, self.ids[start + i]) for i in seen if asked[i] or self.ids[start + i] != mask]
        for hidden, group in groupby(columns, key=lambda column: column[1] == mask):
            run = list(group)
            line += [(HIDDEN * len(run), SHADE)] if hidden else self._letters(run)
        return line

    def _letters(self, run: list[tuple[int, int]]) -> Line:
        """Shown tokens (column, id) as coloured letters; a letter of several tokens has the colour of the last."""
        ids, end, line = [token for _, token in run], 0, []
        ends = [len(self.tokenizer.decode(ids[: i + 1])) for i in range(len(ids))]
        for letter in regex.findall(r"\X", self.tokenizer.decode(ids)):
            end += len(letter)
            column = run[min(bisect_right(ends, end - 1), len(run) - 1)][0]
            line.append((letter, colour(self.sure.get(column))))
        return [("".join(text for text, _ in same), tone) for tone, same in groupby(line, key=lambda part: part[1])]


def colour(probability: float | None) -> str | None:
    return None if probability is None else next((tone for least, tone in LEVELS if probability >= least), "red")


def watch(events: Iterable[Event], view: View, console: Console) -> Finished:
    """Plays the events in a terminal, silently elsewhere; gives the last one."""
    live = Live(console=console, transient=True, refresh_per_second=12)
    with live if console.is_terminal else nullcontext():
        for event in events:
            view.see(event)
            if console.is_terminal and isinstance(event, Draft):
                live.update(Text.assemble(*((text, tone or "") for text, tone in view.frames[-1])))
    assert isinstance(event, Finished)
    return event
