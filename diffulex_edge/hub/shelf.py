"""Models on this machine: where pulled ones lie, what each is, and whether it is still what the hub said it was.

HOME/models/OWNER--NAME/COMMIT/ holds the files of one model and pull.json, the digests that the hub states for them.
The folder gets its name when all of it is there and verified, so what has a name is whole. OWNER--NAME/current says
which commit was pulled last. Knows no network: that is download.py.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import read_json, read_sealed_json, sha256_file, write_sealed_json

RECORD, CURRENT = "pull.json", "current"
COMMIT = re.compile(r"[0-9a-f]{40}")
NAME = re.compile(r"\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII)
_BYTES_AT_ONCE = 1 << 20


def git_blob_sha1(path: Path) -> str:
    """What git calls a file of these bytes: SHA-1 of `blob SIZE`, a zero byte, and the bytes."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(_BYTES_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()


DIGESTS: dict[str, Callable[[Path], str]] = {"sha256": sha256_file, "git-sha1": git_blob_sha1}


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the hub states of a file: large ones (LFS) by SHA-256, the others by the name of their git blob."""

    name: str
    size: int  # bytes
    algorithm: str  # of DIGESTS
    digest: str

    def check(self, path: Path) -> None:
        """Raises ArtefactError, naming the file, where it is missing or has other bytes."""
        if not path.is_file():
            raise ArtefactError(f"{path}: no such file")
        if path.stat().st_size != self.size:
            raise ArtefactError(f"{path}: has {path.stat().st_size:,} bytes, the hub states {self.size:,}")
        found = DIGESTS[self.algorithm](path)
        if found != self.digest:
            raise ArtefactError(
                f"{path}: corrupt: its {self.algorithm} is {found[:12]}, the hub states {self.digest[:12]}"
            )


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model on this machine."""

    name: str  # what --ckpt takes
    family: str  # model_type of config.json; ? where that cannot be read
    size: int  # bytes
    commit: str | None  # of the hub; None: inside the package
    path: Path


def home_from_env() -> Path:
    """Where this program keeps what it downloads: $DIFFULEX_HOME, else ~/.cache/diffulex-edge."""
    return Path(os.environ.get("DIFFULEX_HOME") or Path.home() / ".cache" / "diffulex-edge")


def place_of(name: str, cache: Path | str | None = None) -> Path:
    """The folder of all commits of OWNER/NAME. Raises UsageError for what is no such name."""
    if not is_name(name):
        raise UsageError(f"{name!r} is not OWNER/NAME: letters, digits and single . _ - inside, as the hub has them")
    return _models(cache) / name.replace("/", "--")


def is_name(name: str) -> bool:
    """Whether it can be a model of the hub; nothing that is leaves the folder it is put in."""
    return bool(NAME.fullmatch(name)) and "--" not in name and ".." not in name


def _models(cache: Path | str | None) -> Path:
    return (home_from_env() if cache is None else Path(cache)) / "models"


def pulled(name: str, cache: Path | str | None = None) -> Path | None:
    """The folder of the commit of OWNER/NAME that was pulled last; None where there is none, or for another name."""
    place = place_of(name, cache) if is_name(name) else None
    if place is None or not (place / CURRENT).is_file():
        return None
    commit = (place / CURRENT).read_text(encoding="ascii", errors="replace").strip()
    return place / commit if COMMIT.fullmatch(commit) and (place / commit).is_dir() else None


def write_record(folder: Path, name: str, commit: str, stated: list[Stated]) -> None:
    write_sealed_json(folder / RECORD, {"name": name, "commit": commit, "files": [asdict(file) for file in stated]})


def read_record(folder: Path) -> tuple[str, str, list[Stated]]:
    """(name, commit, files) of a pulled folder; ArtefactError where pull.json is missing or was changed."""
    record = read_sealed_json(folder / RECORD)
    try:
        stated = [Stated(**file) for file in record["files"]]
        if any(Path(file.name).name != file.name or file.algorithm not in DIGESTS for file in stated):
            raise ValueError("a file's name or algorithm is not one of ours")
        return record["name"], record["commit"], stated
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{folder / RECORD}: not a record of a pull: {error}") from None


def models(cache: Path | str | None = None) -> list[Model]:
    """The models inside the package, then the pulled ones, every commit of them."""
    return [*_shipped(), *_pulled(cache)]


def _shipped() -> Iterator[Model]:
    for manifest in sorted(Path(str(files("diffulex_edge") / "assets")).glob("*/manifest.json")):
        yield describe(manifest.parent)


def _pulled(cache: Path | str | None) -> Iterator[Model]:
    for record in sorted(_models(cache).glob(f"*--*/*/{RECORD}")):
        if COMMIT.fullmatch(record.parent.name):  # else it is still being pulled
            yield describe(record.parent)


def describe(folder: Path) -> Model:
    """What there is to say of the folder of a pulled or shipped model, by its place and config.json."""
    commit = folder.name if (folder / RECORD).exists() else None
    return Model(
        name=folder.name if commit is None else folder.parent.name.replace("--", "/", 1),
        family=_family(folder),
        size=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        commit=commit,
        path=folder,
    )


def _family(folder: Path) -> str:
    try:
        config: Any = read_json(folder / "config.json")
    except ArtefactError:
        return "?"
    return str(config.get("model_type", "?")) if isinstance(config, dict) else "?"


def verify(folder: Path) -> None:
    """Reads every byte of a pulled or shipped model; ArtefactError names the first file that is not as it was."""
    if (folder / RECORD).exists():
        for file in read_record(folder)[2]:
            file.check(folder / file.name)
        return
    from diffulex_edge.model import checkpoint  # loads torch, which listing does without

    checkpoint.verify(folder)
