"""Files that are whole or not there, and JSON that notices when it was changed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
from pathlib import Path

import pytest

from diffulex_edge.errors import ArtefactError, ResourceError, UsageError
from diffulex_edge.files import (
    alone_in,
    atomic,
    check_writable,
    disk_errors,
    read_json,
    read_sealed_json,
    sha256_file,
    write_atomic,
    write_sealed_json,
)


def test_an_atomic_write_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"old")
    with pytest.raises(KeyboardInterrupt):
        _stop_half_way(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _stop_half_way(path: Path) -> None:
    with atomic(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def test_a_file_keeps_its_mode_and_a_new_one_has_the_usual(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, b"x")
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    path.chmod(0o640)
    write_atomic(path, b"y")
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_a_resource_error_that_names_the_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.bin"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(ResourceError, match=r"a\.bin: No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_of_the_system_pass_through() -> None:
    with pytest.raises(PermissionError), disk_errors("x"):
        raise PermissionError(errno.EACCES, "no")


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    with pytest.raises(ArtefactError, match="no such file"):
        sha256_file(tmp_path / "b")


def test_sealed_json_comes_back(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None], "नाम": {"x": "0" * 64}, "sha": "f" * 64}
    write_sealed_json(tmp_path / "a.json", content)
    assert read_sealed_json(tmp_path / "a.json") == content
    assert json.loads((tmp_path / "a.json").read_text())["नाम"] == {"x": "0" * 64}


def test_every_bit_flip_and_truncation_of_sealed_json_is_found(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.json", random.Random(0)
    write_sealed_json(path, {"text": "कल ABC abc \\u00e9 1e5", "n": 100, "x": 1e30, "list": [True, None, 0.25]})
    whole = path.read_bytes()
    damaged = [whole[: rng.randrange(len(whole))] for _ in range(50)]
    for place in rng.sample(range(8 * len(whole)), 400):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ArtefactError, match=r"a\.json"):
            read_sealed_json(path)


@pytest.mark.parametrize(
    "content", [b"[]", b'{"sha256": 5}', b'{"sha256": "0"}', b"{}", b'"x"', b"\xff", b"[" * 100_000]
)
def test_json_that_was_never_sealed_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ArtefactError, match=r"a\.json"):
        read_sealed_json(tmp_path / "a.json")
    with pytest.raises(ArtefactError, match=r"b\.json"):
        read_sealed_json(tmp_path / "b.json")


def test_what_cannot_be_read_is_an_artefact_error_with_its_name(tmp_path: Path) -> None:
    for read in (read_json, read_sealed_json, sha256_file):
        for path in (tmp_path, tmp_path / "none"):
            with pytest.raises(ArtefactError, match=rf"{path.name}: no such file"):
                read(path)


def test_a_place_to_write_to_is_known_before_the_work(tmp_path: Path) -> None:
    for path in (tmp_path / "a.json", tmp_path / "new" / "deep" / "a.json"):
        check_writable(path)
    assert not list(tmp_path.iterdir()), "and nothing is left behind"
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "a.json", Path("/proc/none/a.json")):
        with pytest.raises(UsageError, match=str(path)):
            check_writable(path)
    check_writable(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    busy = pytest.raises(ResourceError, match="another training is at work in this folder")
    with alone_in(tmp_path / "new", "training"), busy, alone_in(tmp_path / "new", "training"):
        pass
    with alone_in(tmp_path / "new", "training"):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="no folder that can be written to"), alone_in(tmp_path / "file", "training"):
        pass
