"""Files that are whole or not there: atomic writes, digests, and JSON that notices when it was changed.

Order of an atomic write: temporary file in the same folder, write, flush, fsync, rename, fsync of the folder. A reader
sees the old file or the new one, never half of one, also after a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from diffulex_edge.errors import ArtefactError, ResourceError, UsageError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BLANK = "0" * 64  # stands where a sealed JSON's own digest goes


def write_atomic(path: Path | str, data: bytes) -> None:
    """Replaces the file by `data`, or leaves it as it was."""
    with atomic(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[BinaryIO]:
    """A temporary binary file that becomes `path` when the block ends well, and vanishes when it does not."""
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, _mode_of(path))  # mkstemp gives 0600
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
        sync_folder(path.parent)


def _mode_of(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turns "no space left" into a ResourceError that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise ResourceError(f"{path}: {error.strerror}; what was there before is unchanged") from error


@contextlib.contextmanager
def alone_in(folder: Path, what: str) -> Iterator[None]:
    """Keeps a second process that does `what` out of a folder; the lock goes with the process, also a killed one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "wb")  # noqa: SIM115 (closed below)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise
        raise UsageError(f"{folder}: no folder that can be written to ({error.strerror})") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # not a POSIX system
            pass
        except BlockingIOError as error:
            raise ResourceError(f"{folder}: another {what} is at work in this folder") from error
        yield


def check_writable(path: Path | str) -> None:
    """Raises UsageError where no file of that name can be written: to be told before the work, not after it."""
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, not a file to write to")
    folder = next((each for each in path.parents if each.exists()), Path())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, in hex; about 1 s a GB. ArtefactError where there is no such file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path | str, error: OSError) -> ArtefactError:
    absent = isinstance(error, FileNotFoundError | IsADirectoryError)
    return ArtefactError(f"{path}: {'no such file' if absent else error.strerror}")


def write_json(path: Path | str, value: Any) -> None:
    """Writes JSON, atomically."""
    write_atomic(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def read_json(path: Path | str) -> Any:
    """Raises ArtefactError, naming the file, where it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not JSON: {error}") from None


def read_object(path: Path | str) -> dict[str, Any]:
    """`read_json` of a file that holds an object; ArtefactError where it holds anything else."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ArtefactError(f"{path}: must be an object, is {type(values).__name__}")
    return values


def write_sealed_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Writes JSON with one more key, `sha256`: the digest of the file's own bytes with 64 zeros in its place."""
    text = json.dumps({"sha256": _BLANK, **content}, ensure_ascii=False, indent=1) + "\n"
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    write_atomic(path, text.replace(_BLANK, digest, 1).encode("utf-8"))


def read_sealed_json(path: Path | str) -> dict[str, Any]:
    """Reads what `write_sealed_json` wrote; ArtefactError if one bit of it has changed since."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not valid JSON ({error})") from error
    digest = content.pop("sha256", None) if isinstance(content, dict) else None
    if not isinstance(digest, str) or len(digest) != 64:
        raise ArtefactError(f"{path}: has no sha256 of itself, so it is not one of ours or was changed")
    if hashlib.sha256(data.replace(digest.encode("utf-8"), _BLANK.encode(), 1)).hexdigest() != digest:
        raise ArtefactError(f"{path}: its sha256 does not fit its content, so it was changed after it was written")
    return content
