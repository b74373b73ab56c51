"""Joules from the kernel's power caps (RAPL on Intel and AMD). A source is named; without one nothing is estimated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_COUNTED = re.compile(r"package-\d+|dram")


class EnergySource(Protocol):
    @property
    def name(self) -> str: ...  # what is counted, or "none: " and why

    def lap(self) -> float | None:
        """Joules since the last lap, or since the start; None where there is no source."""
        ...


@dataclass(frozen=True)
class NoSource:
    reason: str

    @property
    def name(self) -> str:
        return f"none: {self.reason}"

    def lap(self) -> float | None:
        return None


class Powercap:
    """Sums counters that wrap around. A lap must be shorter than one wrap, which takes about an hour at 70 W."""

    def __init__(self, zones: list[Path]) -> None:
        self.zones = zones
        self.name = "rapl " + "+".join(sorted(_label(zone) for zone in zones))
        self._ranges = [_number(zone / "max_energy_range_uj") for zone in zones]
        self._last = self._read()

    def lap(self) -> float | None:
        now = self._read()
        used = sum((new - old) % (most + 1) for new, old, most in zip(now, self._last, self._ranges, strict=True))
        self._last = now
        return used / 1e6

    def _read(self) -> list[int]:
        return [_number(zone / "energy_uj") for zone in self.zones]


def energy_source(root: Path = Path("/sys/class/powercap")) -> EnergySource:
    """The processor packages and their memory, each counted once; NoSource, with the reason, where they cannot be read.

    The parts of a package (core, uncore) are in its counter already, `psys` holds the packages, and the `mmio`
    zones show them a second time: none of these is added.
    """
    zones: dict[Path, None] = {}  # in order, each once
    for path in sorted(root.glob("**/energy_uj")) + sorted(root.glob("*/energy_uj")):
        zone = path.parent.resolve()
        if _COUNTED.fullmatch(_label(zone)) and "mmio" not in zone.name:
            zones[zone] = None
    if not zones:
        return NoSource(f"no package or dram counter under {root}")
    try:
        return Powercap(list(zones))
    except PermissionError:
        return NoSource(f"the counters under {root} are readable by root only")
    except (OSError, ValueError) as error:
        return NoSource(f"the counters under {root} cannot be read: {error}")


def _label(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    return int(path.read_text())
