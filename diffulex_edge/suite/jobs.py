"""A job is one row of the results: what is measured in one go, kept in a file of its own, and never measured twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from diffulex_edge.bench.environment import environment
from diffulex_edge.bench.report import plain
from diffulex_edge.errors import DiffulexEdgeError, Interrupted, UsageError
from diffulex_edge.files import read_sealed_json, write_sealed_json
from diffulex_edge.suite.workplace import Workplace


class Job(Protocol):
    @property
    def name(self) -> str: ...  # of the row, and of its file

    @property
    def needs(self) -> tuple[str, ...]: ...  # names of the jobs whose models it opens

    @property
    def settings(self) -> Mapping[str, Any]: ...  # JSON; a row of other settings is another row

    @property
    def alone(self) -> bool: ...  # it measures speed: nothing else may be at work on its machine

    def ready(self, place: Workplace) -> bool:
        """What the job leaves behind, beside its row, is there."""
        ...

    def run(self, place: Workplace) -> Mapping[str, Any]:
        """The figures of the row, as JSON."""
        ...


class RowOnly:
    """A job that leaves nothing behind beside its row."""

    def ready(self, place: Workplace) -> bool:
        return True


@dataclass(frozen=True)
class Results:
    """The rows that have been measured: a sealed JSON file each."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def has(self, job: Job) -> bool:
        """Raises UsageError where a row of that name was measured with other settings."""
        path = self.path(job.name)
        if not path.exists():
            return False
        held = read_sealed_json(path)["settings"]
        if held != plain(dict(job.settings)):
            raise UsageError(f"{path} was measured with other settings; remove it, or choose another --results")
        return True

    def put(self, row: Mapping[str, Any]) -> None:
        write_sealed_json(self.path(row["name"]), row)

    def read(self) -> dict[str, dict[str, Any]]:
        """All rows by name. Raises ArtefactError for one that was changed since it was measured."""
        return {path.stem: read_sealed_json(path) for path in sorted(self.folder.glob("*.json"))}


def wanted(jobs: Sequence[Job], only: Sequence[str]) -> list[Job]:
    """The jobs whose names begin with one of the words, and those whose models they need; in the order of the suite."""
    by_name = {job.name: job for job in jobs}
    unknown = [word for word in only if not any(name.startswith(word) for name in by_name)]
    if unknown:
        raise UsageError(f"only: no row's name begins with {unknown[0]!r}; they are {', '.join(by_name)}")
    chosen = {job.name for job in jobs if not only or job.name.startswith(tuple(only))}
    needed = {need for name in chosen for need in by_name[name].needs}
    return [job for job in jobs if job.name in chosen | needed]


def due(jobs: Sequence[Job], place: Workplace) -> list[Job]:
    """Those that have yet to run: the rows that are missing, and what these need where it is no longer there."""
    results = Results(place.config.results)
    missing = [job for job in jobs if not results.has(job)]
    needed = {need for job in missing for need in job.needs}
    return [job for job in jobs if job in missing or (job.name in needed and not job.ready(place))]


def run_here(jobs: Sequence[Job], place: Workplace) -> Iterator[tuple[Job, str]]:
    """Measures one job after the other; each comes with why it failed, or an empty string, once its row is written.

    A job whose model could not be trained is left out; Interrupted goes through, and no finished row is lost by it.
    """
    results, failed = Results(place.config.results), set[str]()
    for job in jobs:
        row, why = dict[str, Any](), lacking(job, failed)
        if not why:
            row, why = measure(job, place)
        if why:
            failed.add(job.name)
        else:
            results.put(row)
        yield job, why


def lacking(job: Job, failed: set[str]) -> str:
    """Why a job is left out where others failed; empty where it needs none of them."""
    needs = sorted(failed.intersection(job.needs))
    return f"needs {', '.join(needs)}" if needs else ""


def measure(job: Job, place: Workplace) -> tuple[dict[str, Any], str]:
    """The row, as JSON, with the machine it was measured on; or an empty one, and why."""
    began = time.perf_counter()
    try:
        figures = job.run(place)
    except Interrupted:
        raise
    except DiffulexEdgeError as error:
        return {}, str(error)
    row = {
        "name": job.name,
        "settings": dict(job.settings),
        "figures": figures,
        "seconds": round(time.perf_counter() - began, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(torch.float32),
    }
    return plain(row), ""
