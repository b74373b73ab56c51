"""The denoising as a picture: one line a step, in an SVG of its own.

Each line is one text element whose pieces follow one another, so that the viewer's font shapes Devanagari as it should.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from diffulex_edge.cli.live import LEVELS, View
from diffulex_edge.files import write_atomic

TONES = {
    "green": "#3fb950",
    "cyan": "#39c5cf",
    "yellow": "#d29922",
    "red": "#f85149",
    "bright_black": "#484f58",
    None: "#e6edf3",
}
FONTS = "'Noto Sans Devanagari', 'Nirmala UI', 'Kohinoor Devanagari', Mangal, 'Noto Sans', 'DejaVu Sans', sans-serif"
LINE, MARGIN, WIDTH, SIZE = 30, 24, 960, 17  # pixels
LONGEST = 96  # characters of a line that fit


def save_picture(view: View, path: Path) -> None:
    """Writes the frames of a view, a line each, with a legend below."""
    rows = [_row(i + 1, frame) for i, frame in enumerate(view.frames)]
    height = 2 * MARGIN + LINE * (len(rows) + 1)
    legend = "".join(_piece(f"● {least:.0%} sure or more   " if least else "● less", tone) for least, tone in LEVELS)
    body = "\n".join(_text(y, row) for y, row in enumerate([*rows, legend]))
    fonts = f'font-family="{FONTS}" font-size="{SIZE}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {fonts}>'
    ground = f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#0d1117"/>'
    write_atomic(path, f"{head}\n{ground}\n{body}\n</svg>\n".encode())


def _row(step: int, frame: list[tuple[str, str | None]]) -> str:
    room = LONGEST - sum(len(text) for text, _ in frame[1:])  # what is finished is cut on the left
    pieces = [(frame[0][0][-room:] if room > 0 else "", None), *frame[1:]]
    return _piece(f"{step}", "bright_black") + _indented("".join(_piece(text, tone) for text, tone in pieces))


def _indented(content: str) -> str:
    return f'<tspan x="{2 * MARGIN}">{content}</tspan>'


def _piece(text: str, tone: str | None) -> str:
    shown = escape(text.replace("\n", " "))
    return f'<tspan fill="{TONES[tone]}">{shown}</tspan>' if shown else ""


def _text(line: int, content: str) -> str:
    return f'<text x="{MARGIN}" y="{MARGIN + LINE * (line + 1) - 8}" xml:space="preserve">{content}</text>'
