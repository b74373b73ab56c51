"""What a backend is: whether it is here, what cuts a graph up for it, and how it wants graphs written. No export loop.

Its package is imported inside the methods that need it; asking whether it is available imports nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from diffulex_edge.errors import BackendUnavailable


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether something can be done on this machine, and if not, why."""

    reason: str = ""  # empty: it can

    def __bool__(self) -> bool:
        return not self.reason

    def need(self) -> None:
        """Raises BackendUnavailable with the reason, if there is one."""
        if self.reason:
            raise BackendUnavailable(self.reason)


class Backend(Protocol):
    """A way to run graphs."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str:
        """Where it runs, for the support matrix."""
        ...

    @property
    def tested(self) -> str:
        """How far our tests go with it on Linux, for the support matrix."""
        ...

    @property
    def vectors(self) -> bool:
        """Whether numbers have to be passed as vectors of one, and what a method reads of another has to be written."""
        ...

    @property
    def integers(self) -> bool:
        """Whether it computes the schemes of quant/ that can be delegated."""
        ...

    @property
    def allowed(self) -> frozenset[str]:
        """Operators that may stay outside of it beside those of export/delegation.py, by their names there."""
        ...

    def available(self) -> Availability:
        """Whether a graph can be lowered for it here."""
        ...

    def runs(self) -> Availability:
        """Whether a lowered graph can be run here."""
        ...

    def quantizer(self) -> Any:
        """ExecuTorch's quantiser that its graphs have to pass through; None: it takes them as they are."""
        ...

    def partitioners(self) -> list[Any]:
        """What takes its part out of a graph, ExecuTorch's partitioners in order."""
        ...


def here(backend: Backend) -> str:
    """What can be done with it on this machine, in a few words."""
    lowers, runs = backend.available(), backend.runs()
    return lowers.reason or ("lowers here, and runs" if runs else f"lowers here; {runs.reason}")


def installed(package: str, what: str, extra: str) -> Availability:
    """Whether a package can be imported, without importing it."""
    if find_spec(package) is not None:
        return Availability()
    return Availability(reason=f"{what} needs {package}: pip install 'diffulex-edge[{extra}]'")


def compiler() -> Availability:
    """Whether the last step, from the edge dialect to a file, can be taken: it needs flatc (seed 003, limitation 1)."""
    if sys.platform == "win32":
        return Availability(reason="a .pte needs flatc, which ExecuTorch does not ship for Windows: export stops there")
    return Availability()
