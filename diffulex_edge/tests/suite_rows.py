"""Rows of the suite with made-up figures, as the files hold them: what the page and the verdict are tested on."""

from __future__ import annotations

from typing import Any

from diffulex_edge.suite.seeds import BASELINE, CHALLENGER, LENGTHS, SEEDS


def row(figures: dict[str, Any]) -> dict[str, Any]:
    where = {"cpu": "some processor", "load_average": [0.5, 0.5, 0.5]}
    return {"figures": figures, "environment": where, "finished": "2026-01-02T03:04:05+00:00", "settings": {}}


def training(*, skipped: int = 0, rollbacks: int = 0) -> dict[str, Any]:
    return row({"parameters": 4_400_000, "tokens": 15_000_000, "skipped": skipped, "rollbacks": rollbacks})


def recall(seed: int, accuracy: float) -> dict[str, Any]:
    told = {"seed": seed, "accuracy": accuracy, "ablated_accuracy": 0.13, "steps": 600, "cpu_seconds": 90.0}
    return row({"chance": 0.125, **told})


def step() -> dict[str, Any]:
    each = {"number_type": "bf16", "floor_ms": 1.0, "ms": {"eager": 3.0}, "over_floor": {"eager": 3.0}}
    return row({"context_length": 512, "steps": [each]})


def quality(bits: float, frozen: float | None = None) -> dict[str, Any]:
    modes = {"block": bits, "isolated": bits + 0.1, "memory_shuffled": bits + 0.2}
    modes |= {} if frozen is None else {"block_frozen": frozen}
    return row({"bits_per_char": bits, "by_script": {"roman": {"bits_per_char": bits + 0.5}}, "block_nelbo": modes})


def side(name: str, seconds: float, n: int, *, ratio: float = 1.0, bits: int = 1024) -> dict[str, Any]:
    return {
        "name": name,
        "model": name.partition(",")[0],
        "tokens_per_s": n / seconds,
        "speed_ratio": {"value": ratio, "low": ratio - 0.1, "high": ratio + 0.1},
        "latency_ms": {"p50": 1e3 * seconds},
        "forwards": 12.0,
        "block_nelbo": 1.5,
        "context_bytes": bits,
        "sampled": {
            "ppl_at_entropy": 60.0,
            "rep4_at_entropy": 0.01,
            "documents": {"judge_ppl": 70.0, "rep4": 0.02},
        },
    }


def out_of_reach(*, judge_ppl: float, entropy: float) -> dict[str, Any]:
    """Samples of one temperature, whose entropy is not that of the documents, 3.2."""
    return {
        "points": [{"judge_ppl": judge_ppl, "entropy": entropy}],
        "ppl_at_entropy": None,
        "rep4_at_entropy": None,
        "documents": {"judge_ppl": 70.0, "rep4": 0.02, "entropy": 3.2},
    }


def length(n: int, *, ratio: float = 2.0) -> dict[str, Any]:
    """The Transformer's time grows with the square, EcoHybrid's with N; they meet at N = 512."""
    sides = [side(BASELINE, (n / 512) ** 2, n, bits=n * 1024), side(CHALLENGER, n / 512, n, ratio=ratio)]
    return row({"baseline": BASELINE, "rows": sides, "skipped": [{"name": "eco, full", "reason": "too slow"}]})


def whole(*, ratio: float = 2.0, worse: float = 1.0, skipped: int = 0) -> dict[str, Any]:
    """All rows that the verdict asks for."""
    rows: dict[str, Any] = {f"rivals-{n}": length(n, ratio=ratio) for n in LENGTHS}
    for seed in SEEDS:
        rows |= {f"eco-s{seed}": training(skipped=skipped), f"transformer-s{seed}": training()}
        rows[f"quality-eco-s{seed}"] = quality(1.6 * worse, frozen=1.62 * worse)
        rows[f"quality-transformer-s{seed}"] = quality(1.6)
    return rows
