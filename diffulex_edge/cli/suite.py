"""`bench --suite seeds` measures the rows that are missing; `bench --verdict` says what those that are there mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffulex_edge.bench.report import verdict_table
from diffulex_edge.cli.parse import console
from diffulex_edge.errors import UsageError
from diffulex_edge.suite.cluster import run_on_ray
from diffulex_edge.suite.jobs import Results, due, run_here, wanted
from diffulex_edge.suite.seeds import jobs
from diffulex_edge.suite.verdict import verdict
from diffulex_edge.suite.workplace import SuiteConfig, Workplace


def run_suite(config: SuiteConfig, data_dir: Path, data: tuple[Path, ...], json: str | None) -> dict[str, Any]:
    """Says of each row that it is measured, or why not; fails at the end where one could not be."""
    place = Workplace(config, data_dir, data)
    chosen = wanted(jobs(config), config.only)
    missing, say = due(chosen, place), console(json)
    if any(job.needs for job in missing):
        place.check_documents()  # before the hours of training, not behind them
    say.print(f"{len(missing)} rows to measure of {len(chosen)}; {config.results} has the others")
    failed, run = {}, run_on_ray if config.workers else run_here
    for done, (job, why) in enumerate(run(missing, place), 1):
        say.print(f"[{done}/{len(missing)}] {job.name}: {why or 'measured'}", markup=False)
        if why:
            failed[job.name] = why
    if failed:
        raise UsageError(
            f"{len(failed)} rows could not be measured: {'; '.join(f'{k}: {v}' for k, v in failed.items())}"
        )
    return {"results": str(config.results), "rows": [job.name for job in chosen], "measured": len(missing)}


def run_verdict(config: SuiteConfig, json: str | None) -> dict[str, Any]:
    result = verdict(Results(config.results).read())
    console(json).print(verdict_table(result))
    return result
