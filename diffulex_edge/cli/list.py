"""`list`: the models on this machine; the work is in hub/."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from diffulex_edge.cli.parse import console, report
from diffulex_edge.errors import ArtefactError
from diffulex_edge.hub.shelf import Model, models, verify


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Lists the models that --ckpt takes by name: those inside the package and those pulled from the hub."""

    verify: bool = False  # read every byte and compare; a damaged model makes the exit code 3
    json: str | None = None  # write the list as JSON to this path; - for standard output


def run(flags: Flags) -> list[dict[str, Any]]:
    found = models()
    faults = {model.path: _fault(model) for model in found} if flags.verify else {}
    table = Table("name", "family", "size", "commit", *(["state"] if flags.verify else []), box=None)
    table.add_column("path", overflow="fold")
    for model in found:
        state = ["damaged" if faults[model.path] else "intact"] if flags.verify else []
        size = f"{model.size / 1e6:,.1f} MB"
        table.add_row(model.name, model.family, size, (model.commit or "-")[:12], *state, str(model.path))
    console(flags.json).print(table)
    rows = [asdict(model) | ({"fault": faults[model.path]} if flags.verify else {}) for model in found]
    if any(faults.values()):
        report(rows, flags.json)
        raise ArtefactError(next(fault for fault in faults.values() if fault))
    return rows


def _fault(model: Model) -> str | None:
    try:
        verify(model.path)
    except ArtefactError as error:
        return str(error)
    return None
