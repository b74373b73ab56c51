"""What the stages and the benchmark of SEDAC found, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table

from diffulex_edge.bench.report import titled


def sedac_tables(result: Mapping[str, Any]) -> list[Table]:
    """What a stage of `sedac` found: the probes, the tests of a promise, the curve of speed against change."""
    found = []
    if isinstance(result.get("layers"), list) and result["layers"] and isinstance(result["layers"][0], Mapping):
        table = titled("risk probes, on documents held out", "behind layer", "would change", "AUROC", "best free")
        for row in result["layers"]:
            free = f"{row['free'][row['best_free']]:.3f} {row['best_free']}"
            refused = "" if row["admitted"] else f" refused, {row.get('serves') or 'nothing'} serves"
            verdict = f"{row['auroc']:.3f}{refused}"
            table.add_row(str(row["layer"]), f"{row['changed']:.3f}", verdict, free)
        found.append(table)
    calibration = result.get("calibration") or (result if "tests" in result else None)
    if calibration:
        title = f"tokens changed, {calibration['n']} times {calibration['unit']}: at most {calibration['epsilon']}?"
        shown = next(name for name in ("p_value", "bound") if name in calibration["tests"][0])  # of either control
        table = titled(title, "scale", "changed", shown.removesuffix("_value"), "forwards")
        for test in calibration["tests"]:
            table.add_row(*(f"{test[name]:.4g}" for name in ("scale", "risk", shown, "forwards")))
        chosen = calibration["scale"]
        told = "none keeps the promise: exits stay off" if chosen is None else f"chosen: scale {chosen:.4g}"
        table.caption = told
        found.append(table)
    if result.get("watch"):
        table = titled("spot checks since", "texts", "changed", "scale was", "is now, times the calibrated")
        watch = result["watch"]
        table.add_row(str(watch["n"]), f"{watch['risk']:.4g}", f"{watch['began']:.4g}", f"{watch['factor']:.4g}")
        found.append(table)
    if "curve" in result:
        table = titled("speed against change", "what", "speed", "changed", "forwards")
        for row in result["curve"]:
            table.add_row(row["name"], f"{row['speed']:.3f}x", f"{row['changed']:.4f}", f"{row['forwards']:.3f}")
        found.append(table)
    return found


def sedac_bench_table(result: Mapping[str, Any]) -> Group:
    """The cascade by kernel with the dearest's share of a step, and feed-forwards of fewer channels over whole ones."""
    kernels = list(result["cascade"][0]["us"]) if result["cascade"] else []
    title = f"A cascade of three checkpoints; a step of {result['step_tokens']} tokens: {result['step_us']:.0f} us"
    cascade = titled(title, "tokens", *(f"{name}, us" for name in kernels), "NumPy, of a step")
    for row in result["cascade"]:
        share = f"{row['us']['NumPy'] / result['step_us']:.2%}"
        cascade.add_row(str(row["tokens"]), *(f"{row['us'][name]:.1f}" for name in kernels), share)
    ways = list(result["feed_forward"][0]["of_whole"]) if result["feed_forward"] else []
    title = f"A feed-forward in {result['number_type']}, weights cold, over the whole one"
    table = titled(title, "width x channels", "tokens", "whole, ms", *ways)
    for row in result["feed_forward"]:
        times = (f"{row['of_whole'][way]:.2f}x" for way in ways)
        table.add_row(f"{row['width']}x{row['channels']}", str(row["tokens"]), f"{row['whole_ms']:.3f}", *times)
    where = result["environment"]
    table.caption = f"{where['cpu']}, {where['threads']} threads, load {where['load_average']}"
    rules = list(result["noise"][0]["hard_exits"])
    noise = titled("Hard tokens that exit where half of the easy ones do, simulated", "correlation of errors", *rules)
    for row in result["noise"]:
        noise.add_row(str(row["correlation"]), *(f"{row['hard_exits'][rule]:.4f}" for rule in rules))
    return Group(cascade, table, noise)
