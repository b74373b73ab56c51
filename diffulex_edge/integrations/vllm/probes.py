"""The file of risk probes: one line of weights a checkpoint layer, sealed, and made out to one model.

    risk = sigmoid(w . h + b)      h: the residual stream behind the layer, hidden_states[layer + 1] of transformers

The file holds `layer.7.weight` (D,) and `layer.7.bias` () in float32. Its header names the model by `fingerprint`, and
has the digest of its own tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffulex_edge.errors import ArtefactError
from diffulex_edge.files import write_atomic

FORMAT = "diffulex-edge-risk-probes-1"


class Probe(NamedTuple):
    """A linear probe of one layer."""

    weight: Tensor  # (D,) float32
    bias: Tensor  # () float32


def write_probes(path: Path | str, probes: Mapping[int, Probe], model: Path | str) -> None:
    """Writes the probes by layer, made out to the model in the folder `model`."""
    tensors: dict[str, Tensor] = {}
    for layer, (weight, bias) in probes.items():
        tensors |= {
            f"layer.{layer}.weight": weight.float().contiguous(),
            f"layer.{layer}.bias": bias.float().reshape(()),
        }
    said = {"format": FORMAT, "model": fingerprint(model), "sha256": _digest(tensors)}
    write_atomic(path, save(tensors, said))


def read_probes(folder: Path | str, file: str, layers: tuple[int, ...], width: int) -> dict[int, Probe]:
    """The probes of `layers`, each of `width` weights, from a file in a model's folder.

    Raises ArtefactError, naming the file, where it is missing, was changed, is another model's, or lacks a layer.
    """
    path = Path(folder) / file
    said, tensors = _open(path)
    if said.get("format") != FORMAT:
        raise ArtefactError(f"{path}: is no file of risk probes (format {said.get('format')!r}, not {FORMAT!r})")
    if said.get("sha256") != _digest(tensors):
        raise ArtefactError(f"{path}: its sha256 does not fit its content, so it was changed after it was written")
    here = fingerprint(folder)
    if said.get("model") != here:
        raise ArtefactError(f"{path}: is made out to another model ({said.get('model')}, not {here})")
    found = {}
    for layer in layers:
        probe = Probe(*(tensors.get(f"layer.{layer}.{part}", torch.empty(0, 0)) for part in Probe._fields))
        if probe.weight.shape != (width,) or probe.bias.shape != ():
            raise ArtefactError(f"{path}: has no probe of {width} weights for layer {layer}")
        found[layer] = probe
    return found


def _open(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ArtefactError(f"{path}: no such file; SEDAC's probes are made by integrations/vllm/prepare.py") from None
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"{path}: not a readable safetensors file ({error})") from None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(json.dumps([name, list(tensors[name].shape), str(tensors[name].dtype)]).encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(folder: Path | str) -> str:
    """Which weights a folder holds: a digest of every tensor's name, shape, type and first row. Takes milliseconds.

    Training moves each row of a matrix, so two models do not share one; a single changed number may go unseen.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise ArtefactError(f"{folder}: holds no safetensors weights: SEDAC needs a model in a folder on this machine")
    rows = {}
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    tensor = file.get_slice(name)
                    row = tensor[:1] if tensor.get_shape() else file.get_tensor(name)
                    rows[name] = (tensor.get_shape(), tensor.get_dtype(), row)
        except (SafetensorError, OSError) as error:
            raise ArtefactError(f"{path}: not a readable safetensors file ({error})") from None
    digest = hashlib.sha256()
    for name in sorted(rows):
        shape, dtype, row = rows[name]
        digest.update(json.dumps([name, shape, dtype]).encode())
        digest.update(row.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
