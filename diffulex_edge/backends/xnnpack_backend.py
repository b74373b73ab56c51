"""XNNPACK: any CPU, on phones as on laptops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffulex_edge.backends.base import Availability, installed


@dataclass(frozen=True)
class XnnpackBackend:
    name: str = "xnnpack"
    about: str = "CPU: Linux, macOS, Windows, Android, iOS"
    tested: str = "made and run: equal to the eager model to 1e-4"
    vectors: bool = False
    integers: bool = True
    allowed: frozenset[str] = frozenset()

    def available(self) -> Availability:
        return installed("executorch", "xnnpack", "export")

    def runs(self) -> Availability:
        return self.available()

    def quantizer(self) -> None:
        return None

    def partitioners(self) -> list[Any]:
        self.available().need()
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        return [XnnpackPartitioner()]
