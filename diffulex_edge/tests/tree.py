"""What the architecture tests look at: the files of the checkout, and their syntax trees."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "diffulex_edge"


@functools.cache
def listed() -> tuple[str, ...]:
    """Paths of the checkout, as git sees them: tracked, or new and not ignored; files that are gone are left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return tuple(sorted(name for name in set(out.split("\0")) if name and (ROOT / name).is_file()))


@functools.cache
def sources() -> dict[str, ast.Module]:
    """Path -> syntax tree of every Python file."""
    return {name: ast.parse((ROOT / name).read_text(encoding="utf-8")) for name in listed() if name.endswith(".py")}


def package_sources() -> dict[str, ast.Module]:
    """Those inside the package, without its tests."""
    return {
        name: tree
        for name, tree in sources().items()
        if name.startswith("diffulex_edge/") and not name.startswith("diffulex_edge/tests/")
    }


def room(name: str) -> str:
    """diffulex_edge/text/prepare.py -> text; diffulex_edge/errors.py -> errors."""
    return Path(name).parts[1].removesuffix(".py")


def walk(kind: type | tuple[type, ...], trees: dict[str, ast.Module]) -> Iterator[tuple[str, Any]]:
    """Every node of a kind, with the path it is in."""
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield name, node
