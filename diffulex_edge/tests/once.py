"""What takes minutes to make is made once a run of the tests, though its processes are several."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

FOLDER = Path(os.environ["DIFFULEX_TESTS"])  # conftest.py makes it


def made(name: str, make: Callable[[], Any]) -> Any:
    """What `make` gave, as JSON has it, in the process that called it first; others wait for that."""
    told = FOLDER / f"{name}.made"
    with FileLock(f"{told}.lock"):
        if not told.exists():
            told.write_text(json.dumps(make(), default=str))
    return json.loads(told.read_text())
