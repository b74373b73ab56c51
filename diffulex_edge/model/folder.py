"""Opens the folders that the open families are published in: config.json and safetensors, one file or several.

Nothing in a folder is run, and no pickle is read. Every tensor is placed exactly once, in the number type it is stored
in, read through a memory map that is let go piece by piece, so that loading takes little more than the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import read_object
from diffulex_edge.machine import need_memory
from diffulex_edge.model import sampling
from diffulex_edge.model.families import FAMILIES
from diffulex_edge.model.published import Place, places, read_fields

PIECE = 1 << 24  # numbers that are copied at a time
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
EMBEDDING = "ends.tokens.weight"
INDEX = "model.safetensors.index.json"


def is_published(folder: Path) -> bool:
    """Whether this is a folder as others publish it, and no checkpoint of ours."""
    return (folder / "config.json").is_file() and not (folder / "manifest.json").exists()


def load_published(folder: Path) -> Any:
    """The denoiser of a published folder, for use. Raises ArtefactError naming the file and what is wrong with it."""
    _refuse_pickles(folder)
    values = read_object(folder / "config.json")
    module = _family(values, folder / "config.json")
    _, class_name, config_name = FAMILIES[values["model_type"]]
    config = read_fields(getattr(module, config_name), module.PUBLISHED, values, str(folder / "config.json"))
    config = _with_stops(config, folder)
    try:
        sizes = module.sizes(config)
    except UsageError as error:
        raise ArtefactError(f"{folder / 'config.json'}: {error}") from None
    files = _tensor_files(folder)
    stored, head = _stored(files), module.PUBLISHED.names.head
    if sizes.n_layers > len(stored):
        raise ArtefactError(f"{folder}: {sizes.n_layers} layers, and {len(stored)} tensors in all")
    with torch.device("meta"):
        model = getattr(module, class_name)(config)
    wanted = places(sizes, module.PUBLISHED.names)
    _check(model, stored, files, wanted, head, folder)
    dtype = _number_type(stored)
    need_memory(sum(p.numel() for p in model.parameters()) * dtype.itemsize, f"{folder}")
    model = model.to(dtype).to_empty(device="cpu")
    _fill(model, files, wanted, f"{head}.weight")
    return model.eval().requires_grad_(False)


def _refuse_pickles(folder: Path) -> None:
    found = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if found:
        raise ArtefactError(
            f"{folder / found[0]}: a pickle could run code: remove it; weights are read from safetensors"
        )


def _family(values: Mapping[str, Any], source: Path) -> Any:
    name = values.get("model_type")
    module = import_module(FAMILIES[name][0]) if name in FAMILIES else None
    if not hasattr(module, "PUBLISHED"):
        known = [name for name, (module, *_) in FAMILIES.items() if hasattr(import_module(module), "PUBLISHED")]
        raise ArtefactError(f"{source}: model_type {name!r} is not one of {', '.join(known)}")
    return module


def _with_stops(config: Any, folder: Path) -> Any:
    """The config with the ends that generation_config.json adds to those of config.json."""
    path = folder / sampling.NAME
    if not path.exists():
        return config
    more = read_object(path).get("eos_token_id")
    more = more if isinstance(more, list) else [] if more is None else [more]
    own = config.eos_token_id if isinstance(config.eos_token_id, tuple) else (config.eos_token_id,)
    if not all(isinstance(i, int) and i >= 0 for i in more):
        raise ArtefactError(f"{path}: eos_token_id={more} must be ids")
    return type(config)(**{**vars(config), "eos_token_id": tuple(dict.fromkeys((*own, *more)))})


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Each tensor's file, by the index or from the only file."""
    index, single = folder / INDEX, folder / "model.safetensors"
    if not index.exists():
        if not single.exists():
            raise ArtefactError(f"{folder}: neither model.safetensors nor {INDEX} is here")
        with _opened(single) as file:
            return dict.fromkeys(file.keys(), single)
    told = read_object(index).get("weight_map")
    if not isinstance(told, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in told.values()
    ):
        raise ArtefactError(f"{index}: weight_map must give each tensor a file of this folder")
    files = {tensor: folder / name for tensor, name in told.items()}
    for path in sorted(set(files.values())):
        if not path.exists():
            raise ArtefactError(
                f"{path}: missing; {INDEX} names it for {sum(f == path for f in files.values())} tensors"
            )
        with _opened(path) as file:
            wrong = set(file.keys()) ^ {tensor for tensor, home in files.items() if home == path}
        if wrong:
            raise ArtefactError(f"{path}: does not hold what {INDEX} says: {_some(wrong)}")
    return files


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"{path}: not a whole safetensors file: {error}") from None


class Stored(NamedTuple):
    """What a file says of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]


def _stored(files: Mapping[str, Path]) -> dict[str, Stored]:
    found = {}
    for path in sorted(set(files.values())):
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118
                piece = file.get_slice(name)
                dtype = _DTYPES.get(piece.get_dtype())
                if dtype is None:
                    raise ArtefactError(f"{path}: {name} is of type {piece.get_dtype()}, not of {', '.join(_DTYPES)}")
                found[name] = Stored(dtype, tuple(piece.get_shape()))
    return found


_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def _number_type(stored: Mapping[str, Stored]) -> torch.dtype:
    """That of the largest matrices; a tensor of another one is converted."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in stored.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + _count(tensor.shape)
    return max(sizes, key=lambda dtype: sizes[dtype])


def _check(
    model: nn.Module,
    stored: Mapping[str, Stored],
    files: Mapping[str, Path],
    wanted: Mapping[str, Place],
    head: str,
    folder: Path,
) -> None:
    """Raises ArtefactError where a tensor is missing, unknown or of a wrong shape; nothing is read for it."""
    extra = {name for name in set(stored) - set(wanted) if not name.endswith("rotary_emb.inv_freq")}
    faults = [f"missing {name}" for name in sorted(set(wanted) - set(stored))]
    faults += [f"unknown {name}" for name in sorted(extra - {f"{head}.weight"})]
    if faults:
        raise ArtefactError(f"{folder}: {len(faults)} tensors do not fit: {_some(faults)}")
    parameters = dict(model.named_parameters())
    shapes = {name: (place.n, *parameters[place.parameter].shape[1:]) for name, place in wanted.items()}
    if f"{head}.weight" in extra:
        shapes[f"{head}.weight"] = tuple(parameters[EMBEDDING].shape)
    for name, shape in shapes.items():
        if stored[name].shape != shape:
            raise ArtefactError(
                f"{files[name]}: {name} is {list(stored[name].shape)}, and config.json wants {list(shape)}"
            )


def _fill(model: nn.Module, files: Mapping[str, Path], wanted: Mapping[str, Place], head: str) -> None:
    parameters = dict(model.named_parameters())
    for name, place in wanted.items():
        target = parameters[place.parameter].data[place.start : place.start + place.n]
        for rows, piece in _pieces(files[name], name, target.shape):
            target[rows].copy_(piece)
    if head in wanted or head not in files:
        return
    embedding = parameters[EMBEDDING].data  # some tied models store the head all the same
    for rows, piece in _pieces(files[head], head, embedding.shape):
        if not torch.equal(embedding[rows], piece.to(embedding.dtype)):
            raise ArtefactError(f"{files[head]}: {head} differs from the embedding that it is tied to")


def _pieces(path: Path, name: str, shape: torch.Size) -> Iterator[tuple[slice, Tensor]]:
    """The rows of a tensor, some at a time. The map is closed after each, so that what was read can leave memory."""
    step = max(1, PIECE // max(1, _count(shape[1:])))
    for start in range(0, shape[0], step):
        with _opened(path) as file:
            rows = slice(start, min(start + step, shape[0]))
            yield rows, file.get_slice(name)[rows]


def _count(shape: Any) -> int:
    return int(torch.Size(shape).numel())


def _some(names: Any) -> str:
    names = sorted(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
