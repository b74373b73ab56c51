"""The live view and the picture, on a scripted stream of events."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import pytest
import regex
import torch
from rich.console import Console

from diffulex_edge.cli.live import HIDDEN, SHADE, View, colour, watch
from diffulex_edge.cli.picture import save_picture
from diffulex_edge.runtime.decode import Committed, Draft, Event, Finished
from diffulex_edge.runtime.sampler import Guess
from diffulex_edge.runtime.step import Step

PIECES = ["", "", "", "", " मैं", " क", "्ष", "ल", " <&>", " ि"]
M = 3


class Words:
    """A tokenizer of ten pieces; some join the letter before them."""

    mask_id, eos_id, pad_id, vocab_size, fingerprint = M, 2, 0, len(PIECES), ""

    def encode(self, text: str) -> list[int]:
        return [PIECES.index(text)]

    def split_controls(self, text: str) -> list[str | int]:
        return [text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(PIECES[i] for i in ids)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [PIECES[i] for i in ids]


def draft(block: list[int], hidden: list[bool], probability: list[float], asked: list[bool]) -> Draft:
    one = torch.tensor([1])
    step = Step(index=0, steps=2, t=one.float(), s=one.float(), depth=1, quota=one, last=one.bool())
    n = sum(hidden)
    guess = Guess(
        torch.zeros(n), torch.tensor(probability), torch.zeros(n, 1), torch.tensor([hidden]), torch.Generator()
    )
    return Draft(1, torch.tensor([block]), torch.tensor([asked]), step, guess)


def events() -> list[Event]:
    """A prompt of one token; a block of four tokens and one of padding, in two steps: क and ल, then ्ष and <&>."""
    asked = [True] * 4 + [False]
    return [
        draft([5, M, 7, M, M], [True] * 4 + [False], [0.95, 0.2, 0.5, 0.1], asked),
        draft([5, 6, 7, 8, M], [False, True, False, True, False], [0.2, 0.7], asked),
        Committed(1, torch.tensor([[5, 6, 7, 8, M]]), torch.tensor([asked])),
        Finished([[5, 6, 7, 8]], [[4, 5, 6, 7, 8]], 2, 1),
    ]


@pytest.fixture
def view() -> View:
    seen = View(Words(), [4])
    for event in events():
        seen.see(event)
    return seen


def test_hidden_tokens_are_shades_and_shown_ones_have_the_colour_of_their_confidence(view: View) -> None:
    first = view.frames[0]
    assert first == [(" मैं", None), (" क", "green"), (HIDDEN, SHADE), ("ल", "yellow"), (HIDDEN, SHADE)]


@pytest.mark.parametrize(("shown", "line"), [(0, " मैं क░ल░"), (1, " क░ल░"), (2, "░ल░"), (3, "ल░")])
def test_what_stands_before_the_first_column_in_view_is_not_shown(shown: int, line: str) -> None:
    view = View(Words(), [4], shown=shown)
    view.see(events()[0])
    assert "".join(text for text, _ in view.frames[0]) == line


def test_a_letter_of_several_tokens_has_one_colour_and_keeps_that_it_was_shown_with(view: View) -> None:
    last = view.frames[1]
    assert "".join(text for text, _ in last) == " मैं क्षल <&>"
    assert ("ल", "yellow") in last, "the colour of the step in which it was shown"
    assert ("क्ष", "red") in last, "one letter, in the colour of the token that ends it"


def test_padding_behind_the_end_is_not_drawn(view: View) -> None:
    assert all(sum(text.count(HIDDEN) for text, _ in frame) <= 4 for frame in view.frames)


def test_levels_of_confidence_have_colours_down_to_zero() -> None:
    assert [colour(p) for p in (1.0, 0.9, 0.6, 0.3, 0.0, None)] == ["green", "green", "cyan", "yellow", "red", None]


def test_nothing_is_drawn_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    done = watch(events(), View(Words(), [4]), Console(file=out))
    assert done.tokens == [[5, 6, 7, 8]]
    assert out.getvalue() == ""


def test_a_terminal_sees_every_stage_in_whole_lines() -> None:
    out = io.StringIO()
    watch(events(), View(Words(), [4]), Console(file=out, force_terminal=True, width=80, color_system="standard"))
    said = regex.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert " मैं क्षल <&>" in said


def test_the_picture_is_well_formed_and_holds_every_step(view: View, tmp_path: Path) -> None:
    save_picture(view, tmp_path / "p.svg")
    root = ET.parse(tmp_path / "p.svg").getroot()
    lines = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert lines[0].startswith("1 मैं क" + HIDDEN)
    assert lines[1].endswith("क्षल <&>")
    assert len(lines) == 3, "two steps and a legend"
