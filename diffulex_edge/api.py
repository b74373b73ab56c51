"""Opens a model together with its tokenizer: the way in for a user of the library, and for every verb of the CLI."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch

from diffulex_edge.errors import ArtefactError, BackendUnavailable, UsageError
from diffulex_edge.hub.shelf import home_from_env, pulled
from diffulex_edge.model.base import Denoiser
from diffulex_edge.model.checkpoint import find, read_config, read_model
from diffulex_edge.model.folder import is_published, load_published
from diffulex_edge.model.sampling import Sampling
from diffulex_edge.quant.folder import is_quantized_folder, read_quantized
from diffulex_edge.runtime.openvino_program import is_openvino_folder
from diffulex_edge.runtime.pte import PteDenoiser
from diffulex_edge.text.tokenizer import Tokenizer, load_tokenizer

SHIPPED = "aria-hindi-tiny"  # the name of the model inside the package


def load(path_or_name: str | Path = SHIPPED, *, tokenizer: str | Path | None = None) -> tuple[Denoiser, Tokenizer]:
    """Gives the denoiser and its tokenizer, both verified.

    path_or_name: a run folder (its newest intact checkpoint), RUN/latest.pt (the same), a checkpoint folder, what
        `quantize` wrote, a folder that LLaDA, Dream, SDAR or Fast-dLLM v2 is published in, a .pte or a folder of
        OpenVINO's that `export` wrote (which run in as many threads as PyTorch has by then), the name of the shipped
        model, or OWNER/NAME of a pulled one.
    tokenizer: a file or folder to use instead of the one beside the weights; it must have the same vocabulary.
    Raises ArtefactError, naming the file, where something is missing, corrupt, or does not belong to the rest;
    BackendUnavailable for a Core ML package.
    """
    if Path(path_or_name).suffix == ".pte" or is_openvino_folder(Path(path_or_name)):
        return _program(locate(path_or_name), tokenizer)
    if Path(path_or_name).suffix == ".mlpackage":
        raise BackendUnavailable(f"{path_or_name}: an app on macOS or iOS runs it, nothing here; `peek` verifies it")
    folder = source_of(path_or_name)
    opened = _published if is_published(folder) else _checkpoint
    model, words = opened(folder, Path(tokenizer) if tokenizer is not None else folder)
    model.spec = replace(model.spec, sampling=Sampling.read(folder))
    return model, words


def _checkpoint(folder: Path, source: Path) -> tuple[Denoiser, Tokenizer]:
    model = read_quantized(folder) if is_quantized_folder(folder) else read_model(folder)
    words = load_tokenizer(source)
    _, _, fingerprint = read_config(folder)
    if words.fingerprint != fingerprint:
        raise ArtefactError(
            f"{source}: not the vocabulary that {folder} was trained with"
            f" (fingerprint {words.fingerprint[:12]}, the model's is {fingerprint[:12]})"
        )
    return model, words


def _program(path: Path, tokenizer: str | Path | None) -> tuple[Denoiser, Tokenizer]:
    model = PteDenoiser(path, threads=torch.get_num_threads())
    about = model.description.get("tokenizer")
    if about is None and tokenizer is None:
        raise ArtefactError(f"{path}: its description names no tokenizer; say which: tokenizer=FILE")
    home = path if path.is_dir() else path.parent
    source = Path(tokenizer) if tokenizer is not None else home / Path(about["file"]).name  # type: ignore[index]
    words = load_tokenizer(source)
    if about is not None and words.fingerprint != about["fingerprint"]:
        raise ArtefactError(f"{source}: not the vocabulary that {path} was made with")
    return model, words


def _published(folder: Path, source: Path) -> tuple[Denoiser, Tokenizer]:
    model, words = load_published(folder), load_tokenizer(source)
    if words.mask_id != model.spec.mask_id:
        raise ArtefactError(f"{source}: its mask is id {words.mask_id}, that of {folder} is {model.spec.mask_id}")
    if words.vocab_size > model.spec.vocab_size:
        raise ArtefactError(f"{source}: {words.vocab_size} ids are more than the {model.spec.vocab_size} of {folder}")
    return model, words


def source_of(path_or_name: str | Path) -> Path:
    """The folder that `load` reads: of a run its newest intact checkpoint."""
    place = locate(path_or_name)
    return place if is_published(place) else find(place)


def tuned_folder(path_or_name: str | Path) -> Path:
    """Where `tune` keeps its choice: beside the model, as NAME.tuned; of the shipped one, in this program's home."""
    place = locate(path_or_name)
    place = place.parent if place.name == "latest.pt" and not place.exists() else place
    inside = place.resolve().is_relative_to(Path(str(files("diffulex_edge"))).resolve())
    parent = home_from_env() / "tuned" if inside else place.absolute().parent
    return parent / f"{place.absolute().name}.tuned"


def locate(path_or_name: str | Path) -> Path:
    """A path as it is; the name of a shipped model, or OWNER/NAME of a pulled one, as the folder it lies in.

    A path that exists goes before a model of the same name.
    """
    path = Path(path_or_name)
    shipped = Path(str(files("diffulex_edge") / "assets" / str(path_or_name)))
    if path.exists() or path.name == "latest.pt":
        return path
    if len(path.parts) != 1:
        return pulled(str(path_or_name)) or path
    if not (shipped / "manifest.json").exists():
        raise UsageError(f"{str(path_or_name)!r} is neither a path nor the name of a shipped model ({SHIPPED})")
    return shipped
