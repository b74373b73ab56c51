"""One file over HTTP, whole and verified: goes on where an earlier transfer stopped, and believes only the digest."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

from diffulex_edge.errors import ArtefactError, ResourceError
from diffulex_edge.files import disk_errors
from diffulex_edge.hub.shelf import Stated
from diffulex_edge.text.hub import network_errors

TIMEOUT_S = 30.0  # without a byte from the server
ATTEMPTS = 5  # in a row that bring nothing new
PAUSE_S = 1.0  # before the second attempt; doubles with each that brings nothing


class Watch(Protocol):
    """Is told how far a pull is."""

    def wait(self) -> None:
        """Another process is pulling the same model; this one goes on when that one is done."""
        ...

    def progress(self, name: str, done: int, size: int) -> None: ...


def fetch(url: str, headers: dict[str, str], path: Path, stated: Stated, watch: Watch) -> None:
    """Makes `path` the stated file, on the disk. What is there already is its beginning, or else is fetched afresh.

    Raises ArtefactError where the bytes that come are not those that the hub states: they are removed.
    """
    kept = path.exists()
    try:
        _complete(url, headers, path, stated, watch)
    except ArtefactError:
        path.unlink(missing_ok=True)
        if not kept:
            raise
        fetch(url, headers, path, stated, watch)  # the beginning was bad


def _complete(url: str, headers: dict[str, str], path: Path, stated: Stated, watch: Watch) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    with disk_errors(path):
        path.touch()
        failures = 0
        while (have := path.stat().st_size) < stated.size:
            fault: Exception | None = None
            try:
                _receive(url, headers, path, stated, watch)
            except HfHubHTTPError:  # an answer that says no: it would be the same again
                raise
            except network_errors() as error:
                fault = error
            failures = failures + 1 if path.stat().st_size <= have else 0
            if failures == ATTEMPTS:
                raise fault or ResourceError(f"{path.name}: the hub sends {have:,} of {stated.size:,} bytes, and ends")
            time.sleep(PAUSE_S * 2**failures if failures else 0)
        watch.progress(stated.name, stated.size, stated.size)
        stated.check(path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _receive(url: str, headers: dict[str, str], path: Path, stated: Stated, watch: Watch) -> None:
    """Appends what the server sends; begins anew where it sends the whole file though asked for the rest."""
    from huggingface_hub.utils import hf_raise_for_status, http_stream_backoff

    done = path.stat().st_size
    asked = {**headers, "Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    with http_stream_backoff("GET", url, headers=asked, timeout=TIMEOUT_S, retry_on_exceptions=()) as response:
        hf_raise_for_status(response)
        done = done if response.status_code == 206 else 0
        with open(path, "r+b") as file:
            file.truncate(done)
            file.seek(done)
            for piece in response.iter_bytes():
                done += len(piece)
                if done > stated.size:
                    raise ArtefactError(f"{path}: the server sends more than the {stated.size:,} bytes it stated")
                file.write(piece)
                watch.progress(stated.name, done, stated.size)
