"""The pictures of the page of results, out of the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffulex_edge.errors import BackendUnavailable
from diffulex_edge.files import atomic
from diffulex_edge.suite.lengths import at_lengths, by_length, exponent, sides
from diffulex_edge.suite.seeds import LENGTH, RIVALS

Rows = Mapping[str, Mapping[str, Any]]


def draw(results: Rows, folder: Path) -> list[Path]:
    """Writes the pictures for which there are rows, and says which."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendUnavailable("plots need matplotlib: pip install 'diffulex-edge[bench]'") from error
    drawn = []
    with matplotlib.rc_context({"svg.hashsalt": "diffulex-edge", "svg.fonttype": "none"}):
        for name, fill in PICTURES.items():
            figure = Figure(figsize=(7, 4.5), layout="constrained")
            if not fill(results, figure.subplots()):
                continue
            with atomic(folder / f"{name}.svg") as file:
                figure.savefig(file, format="svg", metadata={"Date": None})
            drawn.append(folder / f"{name}.svg")
    return drawn


def _frontier(results: Rows, axes: Any) -> bool:
    """The judge's perplexity at the documents' entropy against speed, a point a side, a colour a row."""
    drawn = False
    for name, row in sorted(results.items()):
        shown = row["figures"].get("rows", ()) if not name.startswith((LENGTH, RIVALS, "script-")) else ()
        points = [(each["tokens_per_s"], each["sampled"]["ppl_at_entropy"], each["name"]) for each in shown]
        known = [point for point in points if point[1] is not None]
        if not known:
            continue
        drawn = True
        axes.plot([x for x, _, _ in known], [y for _, y, _ in known], "o", label=name)
        for x, y, title in known:
            axes.annotate(title, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", xlabel="tokens a second", ylabel="judge's perplexity at the documents' entropy")
    if drawn:
        axes.legend(fontsize=8)
    return drawn


def _cost(results: Rows, axes: Any) -> bool:
    drawn = _lines(results, axes, 1e-3, ("latency_ms", "p50"), with_exponent=True)
    axes.set(xscale="log", yscale="log", xlabel="tokens written", ylabel="seconds")
    return drawn


def _memory(results: Rows, axes: Any) -> bool:
    drawn = _lines(results, axes, 1 / 1024, ("context_bytes",), with_exponent=False)
    axes.set(xscale="log", yscale="log", xlabel="tokens written", ylabel="KiB that the context holds")
    return drawn


def _lines(results: Rows, axes: Any, scale: float, path: tuple[str, ...], *, with_exponent: bool) -> bool:
    drawn = set[str]()
    for rows in (at_lengths(results, LENGTH), at_lengths(results, RIVALS)):
        for side in (side for side in sides(rows) if side not in drawn):
            points = by_length(rows, side, *path)
            a = exponent(points) if with_exponent else None
            label = side if a is None else f"{side}: N^{a:.2f}"
            axes.plot(list(points), [scale * y for y in points.values()], "o-", label=label)
            drawn.add(side)
    if drawn:
        axes.legend(fontsize=8)
    return bool(drawn)


PICTURES: dict[str, Callable[[Rows, Any], bool]] = {
    "frontier": _frontier,
    "length-cost": _cost,
    "length-memory": _memory,
}
