"""Pulling a model from the Hugging Face hub: only what a model folder needs, verified byte by byte, whole or not there.

The hub's client resolves the revision, lists the files and knows the login. The transfer and the verification are our
own: the client keeps no partial file over a restart, and compares sizes where digests are known.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffulex_edge.errors import ArtefactError, BackendUnavailable, ResourceError, UsageError
from diffulex_edge.files import disk_errors, read_json, sync_folder, write_atomic
from diffulex_edge.hub.shelf import COMMIT, CURRENT, RECORD, Stated, place_of, verify, write_record
from diffulex_edge.hub.transfer import TIMEOUT_S, Watch, fetch
from diffulex_edge.text.hub import first_line, network_errors

# What a model folder needs, at the top of the repository. All is read as data: nothing here can hold code that runs.
WANTED = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|manifest)\.json"
    r"|merges\.txt|vocab\.txt|tokenizer\.model|chat_template\.jinja"
    r"|[\w-][\w.-]*\.safetensors(\.index\.json)?"
    r"|README\.md|CREDITS[\w.-]*\.tsv|(LICEN[CS]E|NOTICE)[\w-]*(\.(txt|md))?",
    re.ASCII,
)
SPARE = 64 << 20  # bytes of disk to leave free


class Unwatched:
    """Nobody looks on."""

    def wait(self) -> None:
        pass

    def progress(self, name: str, done: int, size: int) -> None:
        pass


def pull(
    repo_id: str, revision: str | None = None, *, cache: Path | str | None = None, watch: Watch = Unwatched()
) -> Path:
    """Brings a model folder of the hub onto this machine and gives its path; `api.load` takes its name from then on.

    revision: a branch, a tag or a commit; None: the default branch. cache: instead of $DIFFULEX_HOME.
    A pull that was stopped goes on from where it was; one of a folder that is here already verifies it, and fetches
    again what is damaged. Raises UsageError for what the hub has not or does not show, ResourceError if it cannot be
    reached or the disk is full, ArtefactError for a repository that is no model folder or sends other bytes than it
    states, BackendUnavailable without `huggingface_hub`.
    """
    place = place_of(repo_id, cache)
    if revision is not None and COMMIT.fullmatch(revision) and (place / revision / RECORD).exists():
        with contextlib.suppress(ArtefactError):  # damaged: the hub is asked
            verify(place / revision)
            write_atomic(place / CURRENT, revision.encode())
            return place / revision
    with _faults_of_the_hub(repo_id, revision):
        commit, stated = _listing(repo_id, revision)
        with disk_errors(place):
            place.mkdir(parents=True, exist_ok=True)
        with _alone(place, watch):
            folder = _folder(repo_id, commit, stated, place, watch)
            write_atomic(place / CURRENT, commit.encode())
            return folder


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise BackendUnavailable("pull needs huggingface_hub: pip install 'diffulex-edge[hub]'") from None
    return huggingface_hub.HfApi(library_name="diffulex-edge")


@contextlib.contextmanager
def _faults_of_the_hub(repo_id: str, revision: str | None) -> Iterator[None]:
    hub = _client().endpoint
    from huggingface_hub import errors

    unreachable: tuple[type[Exception], ...] = (errors.OfflineModeIsEnabled, *network_errors())
    try:
        yield
    except errors.GatedRepoError:
        terms = f"accept its terms on {hub}/{repo_id} and log in with `hf auth login`"
        raise UsageError(f"{repo_id} is gated: {terms}") from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"{repo_id} has no branch, tag or commit {revision!r}") from None
    except unreachable as error:
        answer = getattr(error, "response", None)
        if answer is not None and answer.status_code in (401, 403, 404):
            raise UsageError(
                f"{hub} has no model {repo_id}, or does not show it: log in with `hf auth login`"
            ) from None
        told = f"{repo_id} cannot be read from {hub} ({first_line(error)})"
        raise ResourceError(f"{told}; what is pulled already needs no network") from error


def _listing(repo_id: str, revision: str | None) -> tuple[str, list[Stated]]:
    """The commit of a revision, and what is wanted of its files, small ones first."""
    client = _client()
    try:
        info = client.model_info(repo_id, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
        stated = [_stated(file) for file in info.siblings or () if WANTED.fullmatch(file.rfilename)]
    except (KeyError, ValueError) as error:
        raise ArtefactError(f"{client.endpoint}: does not answer like the hub ({first_line(error)})") from error
    names = {file.name for file in stated}
    if not COMMIT.fullmatch(info.sha or ""):
        raise ArtefactError(f"{repo_id}: the hub states no commit, but {info.sha!r}")
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise ArtefactError(f"{repo_id}: no model folder: needs config.json and *.safetensors, and no code is run")
    return info.sha, sorted(stated, key=lambda file: (file.size, file.name))


def _stated(file: Any) -> Stated:
    if file.lfs is not None:
        return Stated(name=file.rfilename, size=file.lfs.size, algorithm="sha256", digest=file.lfs.sha256.lower())
    if file.size is None or file.blob_id is None:
        raise ValueError(f"no size or no digest of {file.rfilename}")
    return Stated(name=file.rfilename, size=file.size, algorithm="git-sha1", digest=file.blob_id.lower())


@contextlib.contextmanager
def _alone(place: Path, watch: Watch) -> Iterator[None]:
    """One pull of a model at a time; a killed one leaves the lock free."""
    import filelock

    lock = filelock.FileLock(place / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        watch.wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _folder(repo_id: str, commit: str, stated: list[Stated], place: Path, watch: Watch) -> Path:
    """The folder of a commit, verified; made in a temporary one that the next pull goes on with."""
    folder, temp = place / commit, place / f".{commit}.tmp"
    if folder.exists():
        try:
            verify(folder)
            return folder
        except ArtefactError:  # what is intact of it need not be fetched again
            shutil.rmtree(temp, ignore_errors=True)
            os.rename(folder, temp)
    with disk_errors(temp):
        temp.mkdir(exist_ok=True)
        for stranger in {file.name for file in temp.iterdir()} - {file.name for file in stated}:
            (temp / stranger).unlink()
        _room_for(stated, temp)
        for file in stated:
            fetch(*_address(repo_id, commit, file.name), temp / file.name, file, watch)
        _no_shard_missing(temp, repo_id)
        write_record(temp, repo_id, commit, stated)
        sync_folder(temp)
        os.rename(temp, folder)
        sync_folder(place)
    return folder


def _address(repo_id: str, commit: str, name: str) -> tuple[str, dict[str, str]]:
    """Where a file of a commit is, and what to say in order to get it; no part of it needs quoting."""
    from huggingface_hub.utils import build_hf_headers

    return f"{_client().endpoint}/{repo_id}/resolve/{commit}/{name}", build_hf_headers(library_name="diffulex-edge")


def _room_for(stated: list[Stated], temp: Path) -> None:
    there = sum(file.stat().st_size for file in temp.iterdir())
    need, free = sum(file.size for file in stated) - there, shutil.disk_usage(temp).free
    if need > free - SPARE:
        raise ResourceError(f"{temp.parent}: needs {need / 1e9:.2f} GB more, and {free / 1e9:.2f} GB are free")


def _no_shard_missing(folder: Path, repo_id: str) -> None:
    for index in folder.glob("*.safetensors.index.json"):
        content = read_json(index)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(shards, dict):
            raise ArtefactError(f"{index}: no index of weights: weight_map is missing")
        missing = sorted({str(name) for name in shards.values()} - {file.name for file in folder.iterdir()})
        if missing:
            raise ArtefactError(f"{repo_id}: {index.name} names files that the repository has not: {missing[0]}")
