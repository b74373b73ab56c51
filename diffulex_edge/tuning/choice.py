"""What `tune` chose for a model on this machine: a sealed file beside the model, and when it is to be followed.

A choice is of one machine, one set of weights and the versions that measured it. Elsewhere it is passed over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from diffulex_edge.errors import ArtefactError
from diffulex_edge.files import read_sealed_json, write_sealed_json
from diffulex_edge.machine import cores, cpu_model

CHOICE = "choice.json"
FORMAT = "diffulex-edge-choice/1"
PACKAGES = ("diffulex-edge", "torch", "executorch", "torchao", "openvino", "nncf")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a model is wanted for: a choice that cannot do it is not followed."""

    modes: Sequence[str] = ()  # all of them, of runtime.plan.MODES, or kinds of context; none: any will do
    block_size: int | None = None  # tokens; None: any
    longest: Callable[[], int] = int  # tokens of the longest text, prompt and answer together
    beyond: str = ""  # what only a model itself does, in words: early exits, guidance, ...; empty: nothing


@dataclass(frozen=True, kw_only=True)
class Choice:
    engine: str  # a key of tuning.engines.ENGINES
    program: str | None  # what runs in the model's place, relative to this file; None: the model itself does
    precision: str  # of the model itself, fp32 or bf16
    threads: int
    context: str  # kind
    modes: list[str]  # that the program can do
    block_size: int  # tokens
    steps: int  # a block
    max_length: int | None  # tokens that a text may have; None: as many as one likes
    measured: dict[str, Any] = field(default_factory=dict)  # tokens_per_s and more, for people
    weights: str  # digest of the model
    machine: dict[str, str]  # processor, cores and versions

    def told(self) -> str:
        """In words."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.engine}, {threads}, blocks of {self.block_size} in context {self.context}"

    def obstacle(self, task: Task) -> str:
        """Why it cannot do the task; empty where it can."""
        if self.program is None:
            return ""
        missing = [mode for mode in task.modes if mode not in (*self.modes, self.context)]
        if missing:
            return f"the program has no context for {missing[0]}"
        if task.beyond:
            return f"a program has no {task.beyond}"
        if task.block_size not in (None, self.block_size):
            return f"the program's blocks are of {self.block_size} tokens, not {task.block_size}"
        if self.max_length is not None and (tokens := task.longest()) > self.max_length:
            return f"{tokens} tokens are more than the {self.max_length} that the program was made for"
        return ""

    def staleness(self, weights: str) -> str:
        """Why it no longer holds; empty where it does."""
        if self.weights != weights:
            return "it was made for other weights"
        changed = sorted(name for name, value in here().items() if self.machine.get(name) != value)
        return f"its {changed[0]} was {self.machine.get(changed[0])}" if changed else ""

    def write(self, folder: Path) -> None:
        write_sealed_json(folder / CHOICE, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """None where nothing was chosen. Raises ArtefactError where the file was changed."""
        if not (folder / CHOICE).exists():
            return None
        content = read_sealed_json(folder / CHOICE)
        if content.pop("format", None) != FORMAT:
            raise ArtefactError(f"{folder / CHOICE}: not of format {FORMAT}")
        try:
            return cls(**content)
        except TypeError as error:
            raise ArtefactError(f"{folder / CHOICE}: not a choice ({error})") from None


def here() -> dict[str, str]:
    """What speed depends on, here and now."""
    return {"processor": cpu_model(), "cores": str(cores()), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"


def weights_of(folder: Path) -> str:
    """What tells the weights of a model folder from others: its manifest, else names, sizes and times of its files."""
    manifest = folder / "manifest.json"
    if manifest.exists():
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    stats = [(path.name, os.stat(path)) for path in sorted(folder.iterdir()) if path.is_file()]
    told = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
