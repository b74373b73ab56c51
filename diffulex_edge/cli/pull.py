"""`pull`: a model of the hub comes onto this machine; the work is in hub/."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import tyro
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from diffulex_edge.cli.parse import console
from diffulex_edge.hub.download import pull
from diffulex_edge.hub.shelf import describe


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Downloads a model of the Hugging Face hub and verifies each file; --ckpt takes its name from then on."""

    repo: tyro.conf.Positional[str]  # OWNER/NAME
    revision: str | None = None  # a branch, a tag or a commit; None: the default branch
    json: str | None = None  # write what was pulled as JSON to this path; - for standard output


class Bars:
    """A bar for each file, in a terminal."""

    def __init__(self, bars: Progress) -> None:
        self.bars, self.files = bars, dict[str, TaskID]()

    def wait(self) -> None:
        self.bars.console.print("another pull of this model is under way: waiting for it")

    def progress(self, name: str, done: int, size: int) -> None:
        if name not in self.files:
            self.files[name] = self.bars.add_task(name, total=size)
        self.bars.update(self.files[name], completed=done)


def run(flags: Flags) -> dict[str, Any]:
    out = console(flags.json)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=out, disable=not out.is_terminal) as bars:
        model = describe(pull(flags.repo, flags.revision, watch=Bars(bars)))
    out.print(f"{model.name}: {model.family}, {model.size / 1e9:.2f} GB, verified, in {model.path}", markup=False)
    return asdict(model)
