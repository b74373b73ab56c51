"""What SEDAC knows of one model, as a folder: probes, how they cascade, and what was promised of a setting.

`sedac.json` is sealed, names the probes' digest and the weights that it is for; another model's folder is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import atomic, read_sealed_json, sha256_file, write_sealed_json
from diffulex_edge.model.soft_exit import sort_channels
from diffulex_edge.runtime.cascading import Cascading
from diffulex_edge.runtime.early_exit import SedacExit
from diffulex_edge.runtime.sampler import ban
from diffulex_edge.sedac.free import FreeRisk, FreeScore
from diffulex_edge.sedac.probe import Probe, Risk

FORMAT = "diffulex-edge-sedac/1"
FACTS, PROBES = "sedac.json", "probes.safetensors"
KINDS = "kinds"  # of tokens, in PROBES


def weights_digest(denoiser: Any) -> str:
    """The sha256 of a model's weights as they are in memory, names, number types and shapes among them."""
    digest = hashlib.sha256()
    for name, value in sorted(denoiser.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_exits(
    folder: Path,
    denoiser: Any,
    probes: Mapping[int, Probe],
    orders: list[Tensor],
    facts: Mapping[str, Any],
    free: Mapping[int, FreeScore] = MappingProxyType({}),
    kinds: Tensor | None = None,
) -> None:
    """The folder of a model, its channels not yet sorted. orders: (K,) of each layer's channels, the weightiest first.

    free: what serves behind layers whose probe was refused. kinds (V,): the script of each token, for routes.

    facts: what is to be told of the probes; `calibration` comes later, by `promise`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"probe.{layer}.{name}": t for layer, probe in probes.items() for name, t in probe.tensors().items()}
    tensors |= {f"order.{i}": order for i, order in enumerate(orders)}
    tensors |= {} if kinds is None else {KINDS: kinds}
    with atomic(folder / PROBES) as file:
        file.write(save({name: t.contiguous() for name, t in tensors.items()}))
    content = {"format": FORMAT, "model": weights_digest(denoiser), "probes": sha256_file(folder / PROBES)}
    scores = {str(layer): asdict(score) for layer, score in free.items()}
    chosen = {"free": scores, "cascade": asdict(Cascading()), "calibration": None}
    write_sealed_json(folder / FACTS, {**content, **facts, **chosen})


def promise(folder: Path, calibration: Mapping[str, Any], cascade: Cascading) -> None:
    """Writes down what calibration found for a cascade."""
    told = {"cascade": asdict(cascade), "calibration": dict(calibration), "watch": None}
    write_sealed_json(folder / FACTS, {**read_exits(folder), **told})


def note_watch(folder: Path, watch: Mapping[str, Any]) -> None:
    """Writes down what spot checks found since the calibration."""
    write_sealed_json(folder / FACTS, {**read_exits(folder), "watch": dict(watch)})


def factor_of(facts: Mapping[str, Any]) -> float:
    """What spot checks have made of the calibrated scale: 1, or less where texts drifted."""
    watch = facts.get("watch")
    return 1.0 if watch is None else float(watch["factor"])


def read_exits(folder: Path) -> dict[str, Any]:
    """The facts of a folder, both files verified; ArtefactError names the one that is damaged."""
    facts = read_sealed_json(folder / FACTS)
    if facts.get("format") != FORMAT:
        raise ArtefactError(f"{folder / FACTS}: format {facts.get('format')!r} is not {FORMAT}")
    if sha256_file(folder / PROBES) != facts["probes"]:
        raise ArtefactError(f"{folder / PROBES}: its sha256 is not the one in {FACTS}")
    return facts


def read_probes(folder: Path, denoiser: Any) -> dict[int, Risk]:
    """What judges behind each checkpoint, of a folder that is this model's.

    Sorts the channels of the model's feed-forwards, so ask once for a model.

    Raises UsageError where the folder is another model's.
    """
    facts = read_exits(folder)
    if facts["model"] != weights_digest(denoiser):
        raise UsageError(f"{folder}: these probes are of other weights than the model's: run `sedac collect` on it")
    tensors = _tensors(folder)
    orders = [tensors[f"order.{i}"] for i in range(sum(name.startswith("order.") for name in tensors))]
    found: dict[int, Risk] = {}
    for layer in sorted({int(name.split(".")[1]) for name in tensors if name.startswith("probe.")}):
        prefix = f"probe.{layer}."
        parts = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        found[layer] = Probe.of(parts, len(denoiser.layers[0].ff.down.weight))
    masks = torch.tensor([denoiser.spec.mask_id])
    for layer, score in facts.get("free", {}).items():
        found[int(layer)] = FreeRisk(
            score=FreeScore(**score), logits=lambda x: ban(denoiser.ends.logits(x, None), masks)
        )
    sort_channels(denoiser.layers, orders)
    return dict(sorted(found.items()))


def read_kinds(folder: Path) -> Tensor | None:
    """The script of each token (V,), as `write_exits` was given it."""
    return _tensors(folder).get(KINDS)


def _tensors(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / PROBES)
    except SafetensorError as error:
        raise ArtefactError(f"{folder / PROBES}: {error}") from None


def open_exits(folder: Path, denoiser: Any) -> SedacExit | None:
    """The exits that calibration and the checks since allow this model; None: none. Sorts the model's channels.

    Raises UsageError where the folder is not calibrated, or another model's.
    """
    facts = read_exits(folder)
    calibration = facts["calibration"]
    if calibration is None:
        raise UsageError(f"{folder} has probes but no promise: run `sedac calibrate` on it")
    probes = read_probes(folder, denoiser)
    scale = factor_of(facts) * (calibration["scale"] or 0.0)
    return cascade_of(facts).exits(probes, scale, read_kinds(folder)) if scale else None


def cascade_of(facts: Mapping[str, Any]) -> Cascading:
    """The cascade that a folder's facts tell of."""
    return replace(Cascading(), **tuples(facts["cascade"]))


def tuples(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in numbers.items()}
