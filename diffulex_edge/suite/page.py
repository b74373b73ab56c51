"""The page of results, in Markdown, out of the rows alone: nothing on it is written by hand."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffulex_edge.bench.report import number
from diffulex_edge.errors import UsageError
from diffulex_edge.suite.costs import token_evaluations
from diffulex_edge.suite.lengths import at_lengths, by_length, crossover, exponent, sides
from diffulex_edge.suite.seeds import BASELINE, CHALLENGER, FAMILIES, LENGTH, RIVAL, RIVALS, jobs
from diffulex_edge.suite.verdict import verdict
from diffulex_edge.suite.workplace import SuiteConfig

Row = Mapping[str, Any]
Rows = Mapping[str, Row]
HEAD = """# What the seeds' experiments gave

Written by `make docs` from the rows in `docs/results/`, which `diffulex-edge bench --suite seeds --data dev.jsonl`
measures: one thread, sides in turn in one process, medians, ratios with 95 % intervals of paired runs. `block NELBO`
is in bits a character of held-out text, given what the side's mode has in hand. `judge` is a 5-gram's perplexity of
sampled text, and rep-4 the share of its four-grams that were there before, both read off along the temperature (top-p
0.9) where the entropy of the samples is that of the documents; a bound or a dash where no temperature tried reaches it.
A ratio compares sides of one row; figures of different rows may come from different machines.
"""


def page(results: Rows) -> str:
    sections = (_verdict, _models, _memory, _recall, _lengths, _rivals, _step, _sweeps, _missing)
    return "\n".join([HEAD, *filter(None, (section(results) for section in sections))]).rstrip() + "\n"


def _verdict(results: Rows) -> str:
    try:
        found = verdict(results)
    except UsageError as error:
        return f"## Verdict\n\nOpen: {error}.\n"
    lines = [(r["rule"], number(r["value"]), str(r["limit"]), "yes" if r["holds"] else "no") for r in found["rules"]]
    said = f"EcoHybrid is the **{found['verdict']}** path by seed 002's rules (`bench --verdict`)."
    return f"## Verdict\n\n{said}\n\n{_table(('rule', 'measured', 'limit', 'holds'), lines)}\n"


def _models(results: Rows) -> str:
    """Bits a character by script, each family the mean of its seeds."""
    groups = {name: _named(results, f"quality-{name}-s") for name in FAMILIES}
    groups |= {row.removeprefix("quality-"): {row: results[row]} for row in results if row.startswith("quality-eco-m")}
    groups = {name: rows for name, rows in groups.items() if rows}
    scripts = sorted(
        {script for rows in groups.values() for row in rows.values() for script in row["figures"]["by_script"]}
    )
    lines = []
    for name, rows in groups.items():
        trained = [results[row.removeprefix("quality-")]["figures"] for row in rows]
        whole = [row["figures"]["bits_per_char"] for row in rows.values()]
        each = [[row["figures"]["by_script"][script]["bits_per_char"] for row in rows.values()] for script in scripts]
        size, read = trained[0]["parameters"] / 1e6, trained[0]["tokens"] / 1e6
        cells = (f"{size:.2f} M", f"{read:.1f} M", str(len(rows)), _spread(whole), *map(_spread, each))
        lines.append((name, *cells))
    if not lines:
        return ""
    head = ("model", "parameters", "tokens", "seeds", "bits a character", *scripts)
    about = (
        "Held-out documents in windows of 256 tokens: a bound for the denoisers, exact for the causal Transformer."
        " `eco-mM` has M memory slots and saw a third of the tokens."
    )
    return f"## Models of one size, trained on the same tokens\n\n{about}\n\n{_table(head, lines)}\n"


def _memory(results: Rows) -> str:
    lines = []
    for name, row in _named(results, "quality-eco").items():
        bits = row["figures"]["block_nelbo"]
        gap = bits["isolated"] - bits["block"]
        closed = (bits["isolated"] - bits["block_frozen"]) / gap if gap else float("nan")
        modes = ("block", "block_frozen", "isolated", "memory_shuffled")
        worse = f"{bits['block_frozen'] / bits['block'] - 1:+.1%}"
        lines.append((name.removeprefix("quality-"), *(number(bits[mode]) for mode in modes), worse, f"{closed:.0%}"))
    if not lines:
        return ""
    head = ("model", "block", "block_frozen", "isolated", "memory_shuffled", "frozen over block", "gap closed")
    about = "`gap closed`: how much of what all text before a block is worth (isolated minus block) the memory keeps."
    return f"## Frozen memory\n\n{about}\n\n{_table(head, lines)}\n"


def _recall(results: Rows) -> str:
    rows = [row["figures"] for row in _named(results, "recall-").values()]
    if not rows:
        return ""
    lines = [
        (
            str(row["seed"]),
            number(row["accuracy"]),
            number(row["ablated_accuracy"]),
            str(row["steps"]),
            number(row["cpu_seconds"]),
        )
        for row in rows
    ]
    head = ("seed", "through the memory", "with an empty one", "updates", "CPU seconds")
    about = f"The share of values that a toy recalls, of keys in sight (`bench --recall`). Chance: {rows[0]['chance']}."
    return f"## Recall through the frozen memory\n\n{about}\n\n{_table(head, lines)}\n"


def _step(results: Rows) -> str:
    if "step" not in results:
        return ""
    figures = results["step"]["figures"]
    lines = [
        (
            row["number_type"],
            number(row["floor_ms"]),
            engine,
            number(row["ms"][engine]),
            number(row["over_floor"][engine]),
        )
        for row in figures["steps"]
        for engine in row["ms"]
    ]
    head = ("number type", "floor, ms", "engine", "ms", "times the floor")
    about = f"The shipped model, a block of 32 tokens behind {figures['context_length']} (`bench --step`)."
    return f"## A denoise step over its floor\n\n{about}\n\n{_table(head, lines)}\n\n{_where(results['step'])}\n"


def _lengths(results: Rows) -> str:
    rows = at_lengths(results, LENGTH)
    if not rows:
        return ""
    about = "Tokens a second of one checkpoint's modes for N tokens, 4 a step, and the exponent a of latency ~ N^a:"
    pictures = "![latency against length](results/length-cost.svg)\n![memory of the context](results/length-memory.svg)"
    return f"## Length\n\n{about}\n\n{_growth(rows)}\n\n{_frozen_gain(rows)}\n\n{pictures}\n"


def _frozen_gain(rows: Mapping[int, Row]) -> str:
    """How many times `block` frozen memory is, and how many the cost model says it should be."""
    lines = []
    for n, row in rows.items():
        ratio = next(each["speed_ratio"] for each in row["figures"]["rows"] if each["name"] == CHALLENGER)
        told = {"new": n, "prompt": 0, "block": 32, "steps": 8}
        model = token_evaluations("block", **told) / token_evaluations("block_frozen", **told)
        lines.append((f"{n}", number(ratio["value"]), number(ratio["low"]), number(ratio["high"]), number(model)))
    head = ("N", "block_frozen, times block", "low", "high", "fewer tokens through the model, times")
    return _table(head, lines)


def _rivals(results: Rows) -> str:
    rows = at_lengths(results, RIVALS)
    if not rows:
        return ""
    latency = {side: by_length(rows, side, "latency_ms", "p50") for side in (CHALLENGER, BASELINE)}
    over = crossover(latency[CHALLENGER], latency[BASELINE])
    met = "is never faster than" if over is None else f"is faster from N = {over:.0f} on than"
    said = f"`{CHALLENGER}` {met} `{BASELINE}` at equal tokens a step."
    return f"## Length, beside other models\n\n{_growth(rows)}\n\n{said}\n\n{_judged(rows)}\n"


def _judged(rows: Mapping[int, Row]) -> str:
    """At the longest: how fast each side is, and how good its samples are."""
    n, row = list(rows.items())[-1]
    sides = row["figures"]["rows"]
    rival = next((each for each in sides if each["name"] == RIVAL), None)
    lines = []
    for each in sides:
        times = None if rival is None else each["tokens_per_s"] / rival["tokens_per_s"]
        lines.append((each["name"], number(each["tokens_per_s"]), number(times), _judge(each["sampled"])))
    table = _table((f"at N = {n}", "tokens/s", f"times `{RIVAL}`", "judge"), lines)
    return table if rival is None else f"{table}\n\n{_equals(sides, rival)}"


def _equals(sides: Sequence[Row], rival: Row) -> str:
    """Which of EcoHybrid's sides write as well as the rival."""
    limit = rival["sampled"]["ppl_at_entropy"] or rival["sampled"]["points"][0]["judge_ppl"]
    judged = {each["name"]: each["sampled"]["ppl_at_entropy"] for each in sides if each["name"].startswith(CHALLENGER)}
    equal = [f"`{name}`" for name, judge in judged.items() if judge is not None and judge <= limit]
    return f"As good as `{RIVAL}` by the judge, at the entropy of the documents: {', '.join(equal) or 'none of them'}."


def _judge(sampled: Row) -> str:
    """The judge's perplexity at the documents' entropy, or that of the nearest temperature, which it is under or over.

    Both grow with the temperature.
    """
    if sampled["ppl_at_entropy"] is not None:
        return number(sampled["ppl_at_entropy"])
    coolest, hottest = sampled["points"][0], sampled["points"][-1]
    if coolest["entropy"] >= sampled["documents"]["entropy"]:
        return f"under {number(coolest['judge_ppl'])}"
    return f"over {number(hottest['judge_ppl'])}"


def _growth(rows: Mapping[int, Row]) -> str:
    """Speed with its exponent, and memory, a line a side."""
    lengths, speeds, memories = list(rows), [], []
    for side in sides(rows):
        speed, memory = by_length(rows, side, "tokens_per_s"), by_length(rows, side, "context_bytes")
        a = exponent(by_length(rows, side, "latency_ms", "p50"))
        speeds.append((side, *(number(speed.get(n)) for n in lengths), number(a)))
        memories.append((side, *(_size(memory.get(n)) for n in lengths)))
    n = tuple(f"N = {n}" for n in lengths)
    return f"{_table(('tokens/s', *n, 'a'), speeds)}\n\n{_table(('context', *n), memories)}"


def _sweeps(results: Rows) -> str:
    parts = ["## Sweeps\n\n![quality against speed](results/frontier.svg)\n"]
    for name, row in sorted(results.items()):
        if "baseline" not in row["figures"] or name.startswith((LENGTH, RIVALS)):
            continue
        figures = row["figures"]
        head = (name, "tokens/s", "times the first", "forwards", "block NELBO", "judge", "rep-4")
        lines = [_side(each) for each in figures["rows"]]
        documents = figures["rows"][0]["sampled"]["documents"]
        lines.append(("the documents", "", "", "", "", number(documents["judge_ppl"]), number(documents["rep4"])))
        lines += [(f"{left['name']}: {left['reason']}", *[""] * 6) for left in figures["skipped"]]
        models = ", ".join(dict.fromkeys(each["model"] for each in figures["rows"]))
        parts.append(f"{_table(head, lines)}\n\n{models}; {_where(row)}\n")
    return "\n".join(parts) if len(parts) > 1 else ""


def _side(each: Row) -> tuple[str, ...]:
    ratio, sampled = each["speed_ratio"], each["sampled"]
    times = f"{number(ratio['value'])} ({number(ratio['low'])} to {number(ratio['high'])})"
    figures = map(number, (each["forwards"], each["block_nelbo"]))
    quality = (_judge(sampled), number(sampled["rep4_at_entropy"]))
    return (each["name"], number(each["tokens_per_s"]), times, *figures, *quality)


def _where(row: Row) -> str:
    where = row["environment"]
    return f"{where['cpu']}, load {where['load_average'][0] if where['load_average'] else '?'}, {row['finished'][:10]}"


def _missing(results: Rows) -> str:
    names = [job.name for job in jobs(SuiteConfig()) if job.name not in results]
    return f"## Not measured yet\n\n{', '.join(f'`{name}`' for name in names) or 'Nothing is missing.'}\n"


def _named(results: Rows, prefix: str) -> dict[str, Row]:
    return {name: row for name, row in results.items() if name.startswith(prefix)}


def _spread(values: Sequence[float]) -> str:
    """The mean, and the deviation between seeds where there are several."""
    mean = number(statistics.mean(values))
    return f"{mean} +- {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def _size(value: float | None) -> str:
    return number(None) if value is None else f"{value / 1024:,.0f} KiB"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
