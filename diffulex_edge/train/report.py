"""What a run tells its user: a live line in a terminal, plain lines elsewhere, and log.jsonl always."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diffulex_edge.files import disk_errors
from diffulex_edge.train import state


class Reporter:
    """Loss in nats a token and bits a character, tokens a second, time left; silent where `speaking` is false."""

    def __init__(self, folder: Path, max_steps: int, speaking: bool) -> None:
        self.folder, self.max_steps, self.speaking = folder, max_steps, speaking
        self.last_validation: dict[str, float] = {}
        self._before: tuple[int, float] | None = None  # tokens, clock
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            disable=not (speaking and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task("training", total=max_steps)

    def __enter__(self) -> Self:
        if self.speaking:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._log = open(self.folder / "log.jsonl", "a", encoding="utf-8")
        self._before = None
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self.speaking:
            with contextlib.suppress(OSError):  # of a full disk, which was told when the line was written
                self._log.close()

    def step(self, progress: state.Progress, loss: float, bits_per_char: float, norm: float) -> None:
        now = time.perf_counter()
        tokens, clock = self._before or (progress.tokens, now)
        rate = (progress.tokens - tokens) / (now - clock) if now > clock else 0.0
        self._before = (progress.tokens, now)
        text = f"loss {loss:.3f} nats/token  {bits_per_char:.3f} bits/char  {rate:,.0f} tok/s"
        self._bar.update(self._task, completed=progress.step, description=text)
        self._say(f"step {progress.step}/{self.max_steps}  {text}  skipped {progress.skipped}")
        values = {"loss": loss, "bits_per_char": bits_per_char, "grad_norm": norm, "tokens_per_s": round(rate)}
        self._write({**vars(progress), **values})

    def validation(self, progress: state.Progress, values: dict[str, float]) -> None:
        self.last_validation = values
        text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        if text:
            self._say(f"step {progress.step}/{self.max_steps}  {text}")
            self._write({"step": progress.step, "tokens": progress.tokens, **values})

    def _say(self, line: str) -> None:
        if self.speaking and self._bar.disable:
            print(line, file=sys.stderr, flush=True)

    def _write(self, values: dict[str, Any]) -> None:
        if self.speaking:
            with disk_errors(self._log.name):
                self._log.write(json.dumps({name: _plain(value) for name, value in values.items()}) + "\n")
                self._log.flush()


def _plain(value: float) -> float | None:
    """JSON has neither NaN nor infinities: they are null."""
    return value if math.isfinite(value) else None
