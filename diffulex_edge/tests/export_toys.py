"""Toy models as programs, each made once a run of the tests, by one of its processes: lowering takes a minute."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.export import ExportResult, export_model
from diffulex_edge.export.bundle import as_json
from diffulex_edge.model.base import NONE, Denoiser
from diffulex_edge.model.folder import load_published
from diffulex_edge.tests import family_toys, once, toys

BLOCK, BLOCKS = 8, 3
KINDS = {"eco": "memory", "sdar": "kv", "fast_dllm_v2": "kv", "llada": "canvas", "dream": "canvas"}
SHAPES: dict[str, dict[str, Any]] = {  # that make more methods
    "memory": {},
    "kv": {"prefill": 2 * BLOCK},
    "canvas": {"buckets": (BLOCK * BLOCKS,)},
}
_keep = TemporaryDirectory()  # for as long as the process lives


@cache
def model(name: str) -> Any:
    """In fp32, weights random."""
    if name == "eco":
        return toys.eco(n_layers=2)  # the second attends to its neighbours
    family = family_toys.FAMILIES[name]
    folder = family_toys.write_folder(Path(_keep.name) / name, family, family_toys.hub_model(family))
    return load_published(folder)


@cache
def program(
    name: str, quantization: str | None = None, depths: tuple[int, ...] = (), backend: str = "xnnpack"
) -> ExportResult:
    path = once.FOLDER / f"{name}-{quantization}-{len(depths)}-{backend}.pte"
    shapes: dict[str, Any] = {"block_size": BLOCK, "max_length": 4 * BLOCK, "depths": depths}
    shapes |= {"backend": backend, "quantization": quantization}
    shapes |= SHAPES[KINDS[name]] if (backend, quantization) == ("xnnpack", None) else {}
    told = once.made(path.name, lambda: as_json(export_model(model(name), output_path=path, **shapes)))
    return ExportResult(**{**told, "path": path, "methods": tuple(told["methods"])})


def text(denoiser: Denoiser, seed: int = 0, blocks: int = BLOCKS) -> Tensor:
    """Ids (1, T) of whole blocks."""
    return toys.ids(1, BLOCK * blocks, seed, min(48, denoiser.spec.vocab_size - 8))


def looks(denoiser: Denoiser, kind: str, seed: int = 0, blocks: int = BLOCKS) -> list[Tensor]:
    """Logits along a text: at each block of a wrong look at it, of the right one, and again; the block is then kept.

    A canvas has the text ahead hidden.
    """
    ids, found = text(denoiser, seed, blocks), []
    context = denoiser.begin(kind, 1, ids.shape[1])
    for i, clean in enumerate(ids.split(BLOCK, 1)):
        hidden = torch.arange(BLOCK)[None] % 3 == i % 3
        wrong = clean.flip(1).masked_fill(hidden, denoiser.spec.mask_id)
        right = clean.masked_fill(~hidden, denoiser.spec.mask_id)
        context = context.facing(torch.full((1, ids.shape[1] - (i + 1) * BLOCK), denoiser.spec.mask_id))
        for block in (wrong, right, wrong):
            logits, context = denoiser(block, context)
            found.append(logits)
        _, context = denoiser(clean, context, rows=NONE)
    return found


def gap(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference over all looks, relative to the largest logit."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))
