"""A hub on the loopback: the few answers that pulling a model asks for, and faults on request."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPO, COMMIT, OLDER = "aria/toy", "1a" * 20, "2b" * 20


def small_model() -> dict[str, bytes]:
    """The files of a repository, and among them what must not be fetched."""
    weights = {f"model-0000{i}-of-00002.safetensors": bytes([i]) * 300_000 for i in (1, 2)}
    index = {"weight_map": {f"tensor{i}": name for i, name in enumerate(weights)}}
    return {
        "config.json": json.dumps({"model_type": "sdar"}).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        "README.md": "# नमस्ते\n".encode(),
        "LICENSE": b"Apache-2.0",
        "model.safetensors.index.json": json.dumps(index).encode(),
        **weights,
        "modeling_sdar.py": b"import os",
        "LICENSE.py": b"import os",
        "pytorch_model.bin": b"pickle",
        "model.pt": b"pickle",
        "state.pkl": b"pickle",
        "original/model.safetensors": b"elsewhere",
        ".gitattributes": b"",
    }


class Hub:
    """What the server has, what it does wrong, and what it was asked for."""

    def __init__(self) -> None:
        self.files = small_model()
        self.sent: dict[str, bytes] = {}  # instead of the stated bytes
        self.cut: dict[str, list[int]] = {}  # name -> bytes after which the next transfers end
        self.refusal: tuple[int, dict[str, str]] | None = None
        self.ranges = True
        self.gate: threading.Event | None = None  # transfers of weights wait for it after half of the bytes
        self.halfway = threading.Event()
        self.asked: list[tuple[str, str | None]] = []  # name, Range
        self.endpoint = ""

    def listing(self, commit: str) -> dict[str, Any]:
        return {"id": REPO, "sha": commit, "siblings": [_sibling(name, data) for name, data in self.files.items()]}


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    lfs = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
    large = {"lfs": lfs} if name.endswith(".safetensors") else {}
    return {"rfilename": name, "size": len(data), "blobId": "0" * 40 if large else blob, **large}


class _Answers(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if self.hub.refusal is not None:
            self._reply(*self.hub.refusal, b"")
        elif found := re.fullmatch(rf"/api/models/{REPO}(?:/revision/(.+))?", path):
            revision = found[1] or "main"
            commit = {"main": COMMIT, COMMIT: COMMIT, "old": OLDER, OLDER: OLDER}.get(revision)
            if commit is None:
                self._reply(404, {"X-Error-Code": "RevisionNotFound"}, b"")
            else:
                self._reply(200, {"Content-Type": "application/json"}, json.dumps(self.hub.listing(commit)).encode())
        elif found := re.fullmatch(rf"/{REPO}/resolve/\w{{40}}/(.+)", path):
            self._file(found[1])
        else:
            self._reply(404, {"X-Error-Code": "RepoNotFound"}, b"")

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _file(self, name: str) -> None:
        data, asked = self.hub.sent.get(name, self.hub.files[name]), self.headers.get("Range")
        self.hub.asked.append((name, asked))
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.hub.ranges else 0
        self.send_response(206 if asked and self.hub.ranges else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        cuts = self.hub.cut.get(name)
        if cuts:
            self.wfile.write(data[start : start + cuts.pop(0)])
            self.close_connection = True  # with fewer bytes than were announced
            return
        if self.hub.gate is not None and name.endswith(".safetensors"):
            half = start + (len(data) - start) // 2
            self.wfile.write(data[start:half])
            self.wfile.flush()
            self.hub.halfway.set()
            self.hub.gate.wait(60)
            start = half
        try:
            self.wfile.write(data[start:])
        except OSError:  # the other side is gone
            self.close_connection = True


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        if hub.gate is not None:
            hub.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
