"""Checkpoints: a folder of safetensors and JSON with a manifest of sha256, whole or absent, verified before use.

    RUN/step-00000500/   model.safetensors  ema.safetensors  optimizer.safetensors  state.json
                         config.json  tokenizer.model
                         manifest.json {"format", "files": {name: {"sha256", "size"}}, "digest"}

A folder for use alone (what ships) lacks the optimiser's and the run's state. Nothing here unpickles.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from diffulex_edge.errors import ArtefactError
from diffulex_edge.files import disk_errors, read_json, sha256_file, sync_folder, write_atomic, write_json
from diffulex_edge.model.families import build, config_from_dict

FORMAT = "diffulex-edge-checkpoint/1"
_STEP = re.compile(r"step-(\d{8,})")


def write(folder: Path, writers: Mapping[str, Callable[[Path], None]]) -> None:
    """Writes each file by its writer into a temporary folder, then the manifest, then gives the folder its name.

    An existing folder of that name is replaced. On any failure, a full disk among them, nothing but the old is left.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temp = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with disk_errors(folder):
        try:
            shutil.rmtree(temp, ignore_errors=True)
            temp.mkdir()
            entries = {}
            for name, writer in writers.items():
                writer(temp / name)
                (temp / name).chmod(0o644)  # safetensors gives 0600
                _sync_file(temp / name)
                entries[name] = {"sha256": sha256_file(temp / name), "size": (temp / name).stat().st_size}
            write_json(temp / "manifest.json", {"format": FORMAT, "files": entries, "digest": _digest(entries)})
            replace_folder(temp, folder)
        finally:
            shutil.rmtree(temp, ignore_errors=True)


def replace_folder(temp: Path, folder: Path) -> None:
    """Gives a finished folder the name of another, which may exist; both lie in one file system."""
    if folder.exists():
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        os.rename(folder, old)
        os.rename(temp, folder)
        shutil.rmtree(old)
    else:
        os.rename(temp, folder)
    sync_folder(folder.parent)


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def tensors(values: Mapping[str, Tensor]) -> Callable[[Path], None]:
    """A writer of a safetensors file."""

    def writer(path: Path) -> None:
        try:
            safetensors.torch.save_file({k: v.detach().cpu().contiguous() for k, v in values.items()}, path)
        except safetensors.SafetensorError as error:  # it wraps what the system says: I/O error: ... (os error 28)
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error

    return writer


def document(value: Any) -> Callable[[Path], None]:
    """A writer of a JSON file."""
    return lambda path: write_json(path, value)


def content(value: bytes) -> Callable[[Path], None]:
    """A writer of a file of any kind."""
    return lambda path: write_atomic(path, value)


def copy_of(source: Path) -> Callable[[Path], None]:
    """A writer that copies a file."""

    def writer(path: Path) -> None:
        shutil.copyfile(source, path)

    return writer


def verify(folder: Path) -> dict[str, str]:
    """Checks every file against the manifest; gives {name: sha256}. ArtefactError names the first bad file."""
    folder = Path(folder)
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or set(manifest) != {"format", "files", "digest"} or manifest["format"] != FORMAT:
        raise ArtefactError(f"{folder / 'manifest.json'}: not a manifest of format {FORMAT}")
    if manifest["digest"] != _digest(manifest["files"]):
        raise ArtefactError(f"{folder / 'manifest.json'}: corrupt: its digest is not that of its entries")
    digests = {}
    for name, entry in manifest["files"].items():
        if Path(name).name != name:
            raise ArtefactError(f"{folder / 'manifest.json'}: {name!r} is not a file of this folder")
        digests[name] = sha256_file(folder / name)
        if digests[name] != entry["sha256"]:
            raise ArtefactError(f"{folder / name}: corrupt: its sha256 {digests[name][:12]} is not the manifest's")
    return digests


def _digest(entries: Any) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def steps(run: Path) -> list[Path]:
    """The checkpoints of a run by name, oldest first, verified or not."""
    if not run.is_dir():
        return []
    return sorted(path for path in run.iterdir() if _STEP.fullmatch(path.name))


def newest(run: Path) -> Path | None:
    """The newest checkpoint of a run that verifies; None where there is none at all. A bad one is passed over aloud."""
    candidates, faults = steps(run), []
    for path in reversed(candidates):
        try:
            verify(path)
        except ArtefactError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            print(f"warning: {fault}; going on with {path.name}", file=sys.stderr)
        return path
    if faults:
        raise ArtefactError(f"{run}: none of {len(faults)} checkpoints is intact; the newest: {faults[0]}")
    return None


def find(path: Path) -> Path:
    """A verified checkpoint folder: the folder itself, the newest of a run folder, or of the run of RUN/latest.pt."""
    path = Path(path)
    if path.name == "latest.pt" and not path.exists():
        path = path.parent
    if (path / "manifest.json").exists():
        verify(path)
        return path
    found = newest(path)
    if found is None:
        raise ArtefactError(f"{path}: no checkpoint here: neither a manifest.json nor a folder step-NNNNNNNN")
    return found


def prune(run: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints, oldest first, and what a killed writer left behind.

    Call it after the newest has been verified, from the one process that writes to the run.
    """
    remove([*steps(run)[:-keep], *run.glob(".step-*.tmp"), *run.glob(".step-*.old")])


def remove(folders: Iterable[Path]) -> None:
    """Removes checkpoints, the first first."""
    for folder in folders:
        shutil.rmtree(folder)


def model_config(model_type: str, config: Any, tokenizer_fingerprint: str) -> dict[str, Any]:
    """What config.json holds."""
    return {"model_type": model_type, "model": asdict(config), "tokenizer_fingerprint": tokenizer_fingerprint}


def read_config(folder: Path) -> tuple[str, Any, str]:
    """(model type, config object, tokenizer fingerprint) of a verified folder."""
    source = folder / "config.json"
    values = read_json(source)
    if not isinstance(values, dict) or not {"model_type", "model", "tokenizer_fingerprint"} <= set(values):
        raise ArtefactError(f"{source}: model_type, model or tokenizer_fingerprint is missing")
    config = config_from_dict(values["model_type"], values["model"], str(source))
    return values["model_type"], config, values["tokenizer_fingerprint"]


def read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise ArtefactError(f"{path}: no such file") from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise ArtefactError(f"{path}: not a safetensors file: {error}") from None


def place(model: nn.Module, values: Mapping[str, Tensor], source: Path) -> None:
    """Copies every tensor into the parameter of its name, exactly once. Raises ArtefactError that lists the rest."""
    parameters = dict(model.named_parameters())
    wrong = sorted(set(parameters) ^ set(values))
    wrong += [k for k in set(parameters) & set(values) if parameters[k].shape != values[k].shape]
    if wrong:
        raise ArtefactError(f"{source}: {len(wrong)} tensors do not fit the model: {', '.join(wrong[:4])}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def place_weights(model: nn.Module, folder: Path) -> None:
    """The weights of a verified folder that are for use: the averaged ones where it has them."""
    source = folder / "ema.safetensors"
    source = source if source.exists() else folder / "model.safetensors"
    place(model, read_tensors(source), source)


def load_model(path: Path) -> tuple[Any, Path]:
    """The denoiser of a checkpoint, a run or RUN/latest.pt, in fp32, averaged weights if any; and its folder."""
    folder = find(path)
    return read_model(folder), folder


def read_model(folder: Path) -> Any:
    """The denoiser of a verified folder, in fp32, averaged weights if any."""
    model_type, config, _ = read_config(folder)
    model = build(model_type, config)
    place_weights(model, folder)
    return model.eval().requires_grad_(False)
