"""Results for readers: JSON without NaN, tables for a terminal, a plot of quality against speed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from diffulex_edge.errors import BackendUnavailable, UsageError
from diffulex_edge.files import atomic, check_writable

UNMEASURED = "-"


def plain(value: Any) -> Any:
    """The value as JSON has it: NaN and the infinities are null, tuples are lists, numpy's numbers are numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def eval_tables(result: Mapping[str, Any]) -> list[Table]:
    """The bound by script, the modes, and what the model writes beside how the documents go on."""
    return [_whole(table) for table in (_scripts(result), _modes(result), _written(result))]


def _scripts(result: Mapping[str, Any]) -> Table:
    table = titled("Upper bound on -log p (NELBO)", "text", "bits/char", "+-", "nats/token", "documents", "characters")
    whole = {**result, **result["details"]}
    for name, row in {**result["by_script"], "all": whole}.items():
        counts = (f"{row['documents']:,}", f"{row['characters']:,}")
        table.add_row(name, *_numbers(row, "bits_per_char", "stderr", "nelbo_nats_per_token"), *counts)
    judge = result["details"]["judge"]
    if judge["bits_per_char"] is not None:
        table.add_row(
            "5-gram judge", *_numbers(judge, "bits_per_char"), UNMEASURED, *_numbers(judge, "nats_per_token"), "", ""
        )
    return table


def _modes(result: Mapping[str, Any]) -> Table:
    table = titled(
        "Block by block, given what the mode sees (block_nelbo)", "mode", "bits/char", "+-", "saved by context"
    )
    details = result["details"]
    for mode, value in result["block_nelbo"].items():
        gain = details["block_nelbo_gain"].get(mode, {}).get("bits_per_char")
        reason = details["block_nelbo_missing"].get(mode)
        error = details["block_nelbo_stderr"].get(mode)
        table.add_row(mode, number(value), number(error), reason or number(gain))
    return table


def _written(result: Mapping[str, Any]) -> Table:
    about = result["details"]["generation"]
    columns = ("judge_ppl", "entropy", "rep4", "distinct2", "script_error_rate", "ill_formed_rate")
    table = titled(f"{about['texts']} texts by {about['mode']}, {about['steps']} steps a block", "text", *columns)
    table.add_row("generated", *_numbers(result, *columns))
    table.add_row("the documents'", *_numbers(about["reference"], *columns))
    calibration = ", ".join(f"{name.upper()} {number(result[name])}" for name in ("ece", "aurc"))
    likelihoods = (
        f"masked PLL {number(result['masked_pll'])} nats/token; PLL(t=0) {number(result['pll_t0'])}, degenerate"
    )
    table.caption = f"{calibration}; {likelihoods}"
    return table


def bench_table(result: Mapping[str, Any]) -> Table:
    """One column a variant, so that three modes fit a narrow terminal: speed never without quality."""
    rows = result["rows"]
    table = titled(f"Baseline: {result['baseline']}", "", *(row["name"] for row in rows))
    ratios = [row["speed_ratio"] for row in rows]
    table.add_row("tokens/s", *(number(row["tokens_per_s"]) for row in rows))
    table.add_row("times the baseline", *(number(ratio["value"]) for ratio in ratios))
    table.add_row("  95 % interval", *(f"{number(r['low'])} to {number(r['high'])}" for r in ratios))
    for share in ("p50", "p95"):
        table.add_row(f"latency {share}, ms", *(number(row["latency_ms"][share]) for row in rows))
    for name, label in _BENCH_ROWS.items():
        table.add_row(label, *(number(row[name]) for row in rows))
    table.add_row("peak memory, MB", *(number(row["peak_rss_bytes"] / 1e6) for row in rows))
    where, skipped = result["environment"], [f"{one['name']} skipped: {one['reason']}" for one in result["skipped"]]
    machine = f"{where['cpu']}, {where['threads']} threads, {where['number_type']}, load {where['load_average']}"
    energy = f"energy: {result['energy_source']}; utility: {result['utility']}"
    table.caption = "; ".join([machine, energy, *skipped])
    return _whole(table)


_BENCH_ROWS = {
    "forwards": "forwards (NFE)",
    "tokens_per_forward": "tokens a forward",
    "tokens_kept": "tokens kept",
    "joules_per_token": "J a token",
    "block_nelbo": "block NELBO, bits/char",
    "entropy": "entropy, nats",
    "rep4": "rep-4",
    "judge_ppl": "judge perplexity",
    "utility": "utility",
}


def steps_table(result: Mapping[str, Any]) -> Table:
    """Milliseconds of a step by engine, and in how many floors that is."""
    engines = list(result["rows"][0]["ms"])
    table = titled(
        f"A denoise step after {result['context_length']} tokens", "number type", "tokens", "floor, ms", *engines
    )
    for row in result["rows"]:
        cells = [f"{row['ms'][name]:.1f} ms, {row['over_floor'][name]:.2f} x" for name in engines]
        table.add_row(row["number_type"], str(row["length"]), f"{row['floor_ms']:.1f}", *cells)
    where = result["environment"]
    table.caption = f"{where['cpu']}, {where['threads']} threads, load {where['load_average']}"
    return table


def agreement_table(result: Mapping[str, Any]) -> Table:
    """Tokens a forward and the share of them that one token a step writes too, by threshold."""
    title = f"{result['blocks']} blocks of {result['block_size']} tokens, against one token a step"
    table = titled(title, "threshold", "tokens a forward", "same tokens", "+-")
    for row in result["rows"]:
        shares = (f"{100 * row[name]:.1f} %" for name in ("agreement", "agreement_stderr"))
        table.add_row(str(row["threshold"]), f"{row['tokens_per_forward']:.2f}", *shares)
    return table


def parity_table(result: Mapping[str, Any]) -> Table:
    """A quantised model beside the one that it was made from."""
    table = titled(f"{result['scheme']} on {result['documents']} documents", "", "before", "after")
    table.add_row("bits/char (NELBO)", number(result["bits_per_char"]), number(result["bits_per_char_quantized"]))
    table.add_row("lost, of bits/char", "", f"{result['loss']:+.2%} +- {result['loss_stderr']:.2%}")
    table.add_row("same guess of a hidden token", "", f"{result['guess_agreement']:.1%}")
    table.add_row("same greedy tokens", "", f"{result['token_agreement']:.1%}")
    return table


def verdict_table(result: Mapping[str, Any]) -> Table:
    """Seed 002's rules, what was measured, and what follows."""
    table = titled(f"Verdict: {result['verdict']}", "rule", "measured", "limit", "holds")
    for rule in result["rules"]:
        table.add_row(rule["rule"], number(rule["value"]), str(rule["limit"]), "yes" if rule["holds"] else "no")
    return table


def runtimes_table(result: Mapping[str, Any]) -> Table:
    """Engine by engine and length by length: a step's time, in floors of 8 bits, and what it gets wrong."""
    columns = ("step CPU, ms", "wall, ms", f"times {result['baseline']}", "int8 floors", "error", "tokens/s")
    table = titled(f"One step and a text in context {result['context']}", "tokens", "engine", *columns)
    for part in result["lengths"]:
        for row in (*part["engines"], *part["llama_cpp"]):
            times = row.get("times_baseline", {}).get("ratio")
            floors = row["step_cpu_ms"] / part["floor_ms"]["int8"]
            figures = (row["step_cpu_ms"], row["step_wall_ms"], times, floors)
            more = _numbers(row, "relative_error", "tokens_per_s")
            table.add_row(str(part["length"]), row["engine"], *map(number, figures), *more)
        for name, reason in part["missing"].items():
            table.add_row(str(part["length"]), name, reason)
    where, rates = result["environment"], result["rates_gflops_per_s"]
    best = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    table.caption = f"{where['cpu']}, {where['threads']} threads, load {where['load_average']}; GFLOP/s: {best}"
    return _whole(table)


def training_table(result: Mapping[str, Any]) -> Table:
    table = titled("Training", "number type", "best product GFLOP/s", "share that a step reaches")
    for name, rate in result["gemm_gflops_per_s"].items():
        mark = " (trains in)" if name == result["training_number_type"] else ""
        table.add_row(name + mark, number(rate), f"{result['utilisation'][name]:.1%}")
    table.caption = (
        f"{result['flops_per_step'] / 1e9:.2f} GFLOP a step x {result['steps_per_s']:.2f} steps/s "
        f"= {result['gflops_per_s']:.1f} GFLOP/s; {result['tokens_per_s']:,.0f} tokens/s"
    )
    return _whole(table)


def recall_table(result: Mapping[str, Any]) -> Table:
    """A row a training: the share of values recalled, in all and by block, and without the memory."""
    blocks = [f"block {k + 1}" for k in range(result["query_blocks"])]
    title = f"Recall of {result['keys']} keys of {result['values']} values through frozen memory"
    table = titled(title, "seed", "right", *blocks, "memory ablated", "updates", "CPU seconds")
    for row in result["rows"]:
        shares = (row["accuracy"], *row["accuracy_by_block"], row["ablated_accuracy"])
        cells = (*(number(share) for share in shares), f"{row['steps']:,}", number(row["cpu_seconds"]))
        table.add_row(str(row["seed"]), *cells)
    where = result["environment"]
    table.caption = f"chance: {number(result['chance'])}; {where['cpu']}, {where['threads']} threads"
    return _whole(table)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Quality against speed, a point a variant; the format is that of the file's ending."""
    kind = picture_format(path)
    from matplotlib.figure import Figure

    rows = [row for row in result["rows"] if row["block_nelbo"] is not None]
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        axes.plot(row["tokens_per_s"], row["block_nelbo"], "o")
        axes.annotate(row["name"], (row["tokens_per_s"], row["block_nelbo"]), xytext=(5, 5), textcoords="offset points")
    axes.set(xscale="log", xlabel="tokens kept a second", ylabel="bits a character (block_nelbo, lower is better)")
    with atomic(path) as file:
        figure.savefig(file, format=kind)


def picture_format(path: Path) -> str:
    """The format that a file's ending names. Told before the work: a bad ending, no matplotlib, no place to write."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise BackendUnavailable("a plot needs matplotlib: pip install 'diffulex-edge[bench]'") from error
    kind = path.suffix.lstrip(".").lower()
    if kind not in FigureCanvasBase.get_supported_filetypes():
        raise UsageError(f"{path}: no picture format has the ending {path.suffix!r}; use .svg or .png")
    check_writable(path)
    return kind


def number(value: float | None) -> str:
    """Four figures at most; a dash for what was not measured."""
    if value is None:
        return UNMEASURED
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.3f}"


def _numbers(row: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    return tuple(number(row.get(name)) for name in names)


def titled(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _whole(table: Table) -> Table:
    """The table as wide as its figures: in a narrow terminal, or a file, lines may wrap, but no figure is cut."""
    table.width = Console(width=10_000).measure(table).maximum
    return table
