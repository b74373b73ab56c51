"""How much memory a context takes once a text has been remembered: the tensors that it holds, each once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.model.base import NONE, Denoiser
from diffulex_edge.runtime.decode import prefill


@torch.inference_mode()
def context_bytes(denoiser: Denoiser, kind: str, tokens: int, block_size: int) -> int:
    """Bytes of the context `kind` behind a text of so many tokens, buffers that wait to be filled among them."""
    text = torch.zeros(1, tokens, dtype=torch.long)
    context = denoiser.begin(kind, 1, tokens)
    for piece in prefill(text, block_size, denoiser.spec, context.aligned):
        _, context = denoiser(piece, context, rows=NONE)
    found = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(context)}
    return sum(found.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _tensors(getattr(value, each.name))
