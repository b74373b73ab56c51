"""A layer's weight as integers and scales, by torchao: the only module here that knows it."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge.errors import BackendUnavailable

EXTRA = "quantisation needs torchao: pip install 'diffulex-edge[quant]'"
CUTS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)  # of the greatest: what the last code of 4 bits stands for
TINY = 1e-9  # a row's greatest is at least this: of one that is all zeros
BY_TOKEN = "int8_asym_per_token"  # torchao's word for activations that are rounded token by token as they come


def rounded(weight: Tensor, bits: int, group: int | None, *, activation_bits: int | None) -> nn.Parameter:
    """weight (H, D) in that many bits, a scale a row or group; with activation_bits its input is rounded as well."""
    return assembled(*coded(weight, bits, group), bits=bits, activations=BY_TOKEN if activation_bits else None)


def rounded_by(weight: Tensor, scale: Tensor) -> nn.Parameter:
    """weight (H, D) in 8 bits by given scales (H, 1)."""
    codes = (weight.detach().float() / scale).round().clamp(-127, 127).to(torch.int8)
    return assembled(codes, scale, bits=8, activations=None)


def coded(weight: Tensor, bits: int, group: int | None) -> tuple[Tensor, Tensor]:
    """Codes (H, D) int8 of weight (H, D) and scales: (H, 1) in fp32, or (H, D / group) in bf16.

    In 8 bits the greatest of a row has the last code. In 4 that would round all others by too much: the scale is that
    of a few with the least squared error. Codes are of the scale as it is kept, which torchao's own in bf16 are not.
    """
    rows = weight.detach().float().unflatten(1, (-1, group or weight.shape[1]))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    most = rows.abs().amax(-1, keepdim=True).clamp(min=TINY)
    if bits == 8:
        low, best = -high, most / high
    else:
        best, least = most, torch.full_like(most, torch.inf)
        for part in CUTS:
            scale = _kept(most * (part / high), group)
            error = ((rows / scale).round().clamp(low, high) * scale - rows).square().sum(-1, keepdim=True)
            best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    best = _kept(best, group)
    codes = (rows / best).round().clamp(low, high).to(torch.int8).flatten(1)
    return codes, (best.bfloat16() if group else best)[..., 0]


def _kept(scale: Tensor, group: int | None) -> Tensor:
    return scale.bfloat16().float() if group else scale


def assembled(codes: Tensor, scale: Tensor, *, bits: int, activations: str | None) -> nn.Parameter:
    """The weight of codes (H, D) int8 and scales (H, 1) or (H, D / group); activations: `BY_TOKEN` or None."""
    from torchao.quantization import IntxUnpackedToInt8Tensor

    block = (1, codes.shape[1] // scale.shape[1])
    zero = torch.zeros_like(scale, dtype=torch.int8)
    dtype = getattr(torch, f"int{bits}")
    made = IntxUnpackedToInt8Tensor(codes, scale, zero, dtype, block, torch.float32, activations)
    return nn.Parameter(made, requires_grad=False)


def bits_of(weight: Any) -> int:
    """How many bits a code of such a weight has."""
    return int(str(weight.target_dtype).rpartition("int")[2])


def need_torchao() -> None:
    """Imports it, or raises BackendUnavailable. What it says of kernels for other machines is kept from our user."""
    chatty = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [log.level for log in chatty]
    try:
        for log in chatty:
            log.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchao.quantization  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(EXTRA) from error
    finally:
        for log, level in zip(chatty, levels, strict=True):
            log.setLevel(level)
