"""The page of SEDAC's figures, in Markdown, out of what `bench --sedac` and `sedac report` wrote: nothing by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
HEAD = """# SEDAC, measured

Written by `make docs` from `docs/results/sedac/`: `bench.json` of `diffulex-edge bench --sedac --threads 1`, and
`report.json` of `diffulex-edge sedac report` on texts that no probe learned from. Sides are timed in turn on one
thread; speeds are medians of ratios to all layers, prompt by prompt. V6.1 is seed 004's cascade, soft; V6.0 one
checkpoint, hard; chance exits at the same rates as V6.1.
"""


def sedac_page(bench: Result, report: Result) -> str:
    parts = [_curve(report), _promise(report), _probes(report), _noise(bench), _feed_forward(bench), _cascade(bench)]
    return "\n".join([HEAD, *parts]).rstrip() + "\n"


def _curve(report: Result) -> str:
    rows = [
        (row["name"], f"{row['speed']:.2f}x", f"{100 * row['changed']:.1f} %", f"{row['forwards']:.2f}x")
        for row in report["curve"]
    ]
    return _section("Speed against change", ("what", "tokens a second", "tokens changed", "forwards"), rows)


def _promise(report: Result) -> str:
    found = report["calibration"]
    rows = [
        (f"{t['scale']:.4g}", f"{100 * t['risk']:.2f} %", f"{t['p_value']:.3g}", f"{t['forwards']:.2f}x")
        for t in found["tests"]
    ]
    scale = "none: exits stay off" if found["scale"] is None else f"{found['scale']:.4g}"
    said = (
        f"Learn then Test over {found['n']} sequences, each {found['unit']}: with probability {1 - found['delta']:g}, "
        f"at most {100 * found['epsilon']:g} % of a sequence's tokens change on average. The scale chosen: {scale}."
    )
    return _section("The promise", ("scale of the thresholds", "changed", "p", "forwards"), rows, said)


def _probes(report: Result) -> str:
    rows = [
        (
            str(row["layer"]),
            f"{100 * row['changed']:.1f} %",
            f"{row['auroc']:.3f}",
            f"{row['free'][row['best_free']]:.3f} ({row['best_free']})",
            "yes" if row["admitted"] else "refused",
        )
        for row in report["layers"]
    ]
    columns = ("behind layer", "tokens that would change", "AUROC of the probe", "best of what is free", "admitted")
    return _section("Risk probes", columns, rows)


def _noise(bench: Result) -> str:
    rules = list(bench["noise"][0]["hard_exits"])
    rows = [(f"{r['correlation']:g}", *(f"{r['hard_exits'][rule]:.3f}" for rule in rules)) for r in bench["noise"]]
    said = (
        "Simulated: the share of hard tokens (risk 1.0) that exit where half of the easy ones (0.6) do, each layer's "
        "probe erring by 0.3. The seed's argument needs errors that are independent; its P(wrong) is P(exit), which is "
        "wrong only for hard tokens."
    )
    return _section("Noise", ("correlation between layers", *rules), rows, said)


def _feed_forward(bench: Result) -> str:
    ways = list(bench["feed_forward"][0]["of_whole"])
    rows = [
        (
            f"{r['width']}x{r['channels']}",
            str(r["tokens"]),
            f"{r['whole_ms']:.2f}",
            *(f"{r['of_whole'][w]:.2f}" for w in ways),
        )
        for r in bench["feed_forward"]
    ]
    said = f"Times of the whole, {bench['number_type']}, weights cold. Masking saves nothing; a prefix does."
    return _section("Feed-forwards of fewer channels", ("shape", "tokens", "whole, ms", *ways), rows, said)


def _cascade(bench: Result) -> str:
    kernels = list(bench["cascade"][0]["us"])
    step = bench["step_us"]
    rows = [
        (str(r["tokens"]), *(f"{r['us'][k]:.1f}" for k in kernels), f"{100 * r['us']['NumPy'] / step:.2f} %")
        for r in bench["cascade"]
    ]
    said = (
        f"Microseconds a batch. A step of the shipped model over {bench['step_tokens']} tokens takes {step:.0f}: what "
        "a faster kernel can gain is the last column, for as many tokens as a step has."
    )
    return _section("The controller", ("tokens", *kernels, "NumPy, of a step"), rows, said)


def _section(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], said: str = "") -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]
    return "\n".join([f"## {title}", "", *([said, ""] if said else []), *lines, ""])
