"""`doctor`: what this machine and this installation can do; ends with code 0 whatever it finds."""

from __future__ import annotations

from dataclasses import dataclass

from diffulex_edge.cli.parse import console
from diffulex_edge.doctor import findings


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Tells what this machine and this installation can do."""

    json: str | None = None  # write the findings as JSON to this path; - for standard output


def run(flags: Flags) -> dict[str, str]:
    found = findings()
    for name, finding in found.items():
        console(flags.json).print(f"{name:14} {finding}", markup=False)
    return found
