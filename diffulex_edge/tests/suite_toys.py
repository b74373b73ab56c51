"""Jobs of a suite that take no time to measure, and what may happen to one: it fails, is stopped, its process dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffulex_edge.errors import Interrupted, UsageError
from diffulex_edge.suite.jobs import Job
from diffulex_edge.suite.workplace import SuiteConfig, Workplace
from diffulex_edge.train.signals import Stop

PATIENCE = 300.0  # seconds: a worker of Ray starts slowly where others are at work


def workplace(root: Path, workers: int = 0) -> Workplace:
    config = SuiteConfig(results=root / "rows", suite_dir=root / "models", workers=workers)
    return Workplace(config, root / "data", ())


def wait_for(what: Callable[[], object]) -> bool:
    end = time.monotonic() + PATIENCE
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(what())


@dataclass(frozen=True)
class Toy:
    """Leaves a model behind, and says which process it ran in, and from when to when."""

    name: str
    needs: tuple[str, ...] = ()
    alone: bool = False
    meets: str = ""  # a job that it waits for to be at work at the same time
    seconds: float = 0.0  # that it takes
    size: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        return {"size": self.size, "sides": ("a", "b")}  # a tuple here is a list in the row

    def ready(self, place: Workplace) -> bool:
        return (place.folder(self.name) / "model").exists()

    def run(self, place: Workplace) -> dict[str, Any]:
        began, folder = time.time(), place.folder(self.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "started").touch()
        if self.meets and not wait_for((place.folder(self.meets) / "started").exists):
            raise UsageError(f"{self.name} was alone, without {self.meets}")
        missing = [need for need in self.needs if not (place.folder(need) / "model").exists()]
        if missing:
            raise UsageError(f"{self.name} began without {missing[0]}")
        time.sleep(self.seconds)
        self.measure(folder)
        (folder / "model").touch()
        return {"pid": os.getpid(), "began": began, "ended": time.time()}

    def measure(self, folder: Path) -> None:
        """Where kinds of jobs differ."""


class Refused(Toy):
    def measure(self, folder: Path) -> None:
        raise UsageError(f"{self.name} makes no sense")


class Broken(Toy):
    def measure(self, folder: Path) -> None:
        raise ZeroDivisionError(self.name)


class Dying(Toy):
    def measure(self, folder: Path) -> None:
        os._exit(1)


class Stopped(Toy):
    def measure(self, folder: Path) -> None:
        raise Interrupted(f"{self.name} was stopped")


class Endless(Toy):
    """A training that goes on until it is told to stop, and then writes its checkpoint."""

    def measure(self, folder: Path) -> None:
        with Stop() as stop:
            (folder / "at-work").touch()
            wait_for(lambda: stop.asked)
        time.sleep(0.5)  # the end of the step
        (folder / "checkpoint").touch()
        raise Interrupted(f"{self.name} was stopped")


def names(jobs: Sequence[Job]) -> list[str]:
    return [job.name for job in jobs]
