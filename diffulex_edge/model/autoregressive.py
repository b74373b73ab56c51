"""Autoregressive denoisers (`spec.autoregressive`): one pass over clean text speaks about every token of it."""

from __future__ import annotations

import torch
from torch import Tensor

from diffulex_edge.model.base import Denoiser


def next_token_logits(denoiser: Denoiser, x: Tensor) -> Tensor:
    """Logits (B, T, V) of each token of x (B, T) given those before it; [MASK] stands for the beginning of the text."""
    beginning, _ = denoiser(x.new_full((len(x), 1), denoiser.spec.mask_id))
    later, _ = denoiser(x)
    return torch.cat((beginning, later[:, 1:]), 1)
