"""What static ranges are seen on: texts walked block by block, each block hidden in shares from all to a tenth.

The states of a decoding that never errs. Those of one that does are another room's affair (tuning/calibrate.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import NONE

SHARES = (1.0, 0.75, 0.5, 0.25, 0.1)  # of a block that is hidden, in the order of decoding
BLOCK = 32  # tokens, where the model has no block length
LONGEST = 512  # tokens that are read of a text: later blocks show nothing new, and in `full` cost more and more
WINDOW = 256  # tokens of a text that are hidden together, where attention looks everywhere


@torch.inference_mode()
def replay(model: Any, texts: Iterable[Tensor], *, at_most: int | None = None, seed: int = 0) -> int:
    """Runs the model over texts of ids (T,), in its best context and in `full`; gives the number of texts read.

    Raises UsageError where there is no text.
    """
    generator, read = torch.Generator().manual_seed(seed), 0
    kinds = dict.fromkeys((next(iter(model.spec.contexts)), "full"))
    for whole in islice(texts, at_most):
        text = torch.as_tensor(whole)[:LONGEST]
        for kind in kinds:
            _walk(model, text[None], kind, generator)
        if model.spec.block_length is None:
            _hide(model, text[None, :WINDOW], model.begin("full", 1, WINDOW), generator)
        read += 1
    if not read:
        raise UsageError("there is no text to calibrate on")
    return read


def _walk(model: Any, ids: Tensor, kind: str, generator: torch.Generator) -> None:
    """One text (1, T): each block is looked at in every share, then remembered. What is short of a block is left."""
    size = model.spec.block_length or min(BLOCK, ids.shape[1])
    context = model.begin(kind, 1, ids.shape[1])
    for block in ids.split(size, 1):
        if block.shape[1] < size:
            break
        _hide(model, block, context, generator)
        _, context = model(block, context, rows=NONE)


def _hide(model: Any, block: Tensor, context: Any, generator: torch.Generator) -> None:
    """Looks at a block (1, L) in every share, each hiding a part of what the one before hid."""
    order = torch.rand(block.shape, generator=generator).argsort(1)
    for share in SHARES:
        hidden = order < max(1, round(share * block.shape[1]))
        model(block.masked_fill(hidden, model.spec.mask_id), context, t=torch.tensor([share]), rows=hidden)
