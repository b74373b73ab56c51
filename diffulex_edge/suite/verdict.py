"""Seed 002, section 11: is EcoHybrid the primary path? Three rules, applied to the rows of the suite `seeds`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from diffulex_edge.errors import UsageError
from diffulex_edge.suite.seeds import BASELINE, CHALLENGER, RIVALS, SEEDS

FASTER = 1.5  # times the baseline's tokens a second, at least
WORSE = 1.03  # times the baseline's bits a character, at most
ROW = f"{RIVALS}1024"

Row = Mapping[str, Any]


def verdict(results: Mapping[str, Row]) -> dict[str, Any]:
    """{"verdict": "primary" or "backup", "rules": [...]}; each rule with its numbers, and whether it holds."""
    rules = [_throughput(results), *_quality(results), _stability(results)]
    return {"verdict": "primary" if all(rule["holds"] for rule in rules) else "backup", "rules": rules}


def _throughput(results: Mapping[str, Row]) -> dict[str, Any]:
    figures = _row(results, ROW)["figures"]
    side = next(each for each in figures["rows"] if each["name"] == CHALLENGER)
    ratio = side["speed_ratio"]
    return {
        "rule": f"throughput at N = 1024 is at least {FASTER} times that of the {BASELINE}, at equal tokens a step",
        "value": ratio["value"],
        "low": ratio["low"],
        "high": ratio["high"],
        "limit": FASTER,
        "holds": ratio["value"] >= FASTER,
    }


def _quality(results: Mapping[str, Row]) -> list[dict[str, Any]]:
    """Of whole windows, and of blocks as each of the two decodes them: both have to hold."""
    whole = [_bits(results, f"{name}-s{seed}", "bits_per_char") for name in ("eco", "transformer") for seed in SEEDS]
    blocks = [
        _bits(results, f"{name}-s{seed}", "block_nelbo", mode)
        for name, mode in (("eco", "block_frozen"), ("transformer", "block"))
        for seed in SEEDS
    ]
    n = len(SEEDS)
    return [
        _no_worse("bits a character of whole windows", whole[:n], whole[n:]),
        _no_worse("bits a character of blocks, frozen memory against all text", blocks[:n], blocks[n:]),
    ]


def _no_worse(what: str, eco: list[float], baseline: list[float]) -> dict[str, Any]:
    ratio = statistics.mean(eco) / statistics.mean(baseline)
    return {
        "rule": f"{what}: at most {WORSE} times the Transformer's, mean of {len(eco)} seeds",
        "value": ratio,
        "eco": eco,
        "transformer": baseline,
        "limit": WORSE,
        "holds": ratio <= WORSE,
    }


def _stability(results: Mapping[str, Row]) -> dict[str, Any]:
    runs = [_row(results, f"eco-s{seed}")["figures"] for seed in SEEDS]
    faults = sum(run["skipped"] + run["rollbacks"] for run in runs)
    return {
        "rule": f"no step that is not finite, and no roll-back, in {len(runs)} seeds",
        "value": faults,
        "limit": 0,
        "holds": faults == 0,
    }


def _bits(results: Mapping[str, Row], model: str, *path: str) -> float:
    value: Any = _row(results, f"quality-{model}")["figures"]
    for name in path:
        value = value[name]
    return float(value)


def _row(results: Mapping[str, Row], name: str) -> Row:
    if name not in results:
        raise UsageError(
            f"the verdict needs the row {name}, which has not been measured: bench --suite seeds --only {name}"
        )
    return results[name]
