"""Data parallelism under torchrun: one all-reduce of the gradients a step; nothing at all in a single process.

DistributedDataParallel expects one forward a backward; a step here calls the model several times, on its own contexts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn


@contextmanager
def group() -> Iterator[None]:
    """Joins the process group that torchrun announces, if any, for as long as the block lasts."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """With several processes on a machine's GPUs, each takes the one of its number there."""
    if device.type != "cuda" or world_size() == 1:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    return rank() == 0


def average_gradients(model: nn.Module) -> None:
    """Every rank goes on with the mean gradient; a parameter that one rank did not touch counts as zero there."""
    if world_size() == 1:
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= world_size()
    for p, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = grad.view_as(p)


def mean(value: float) -> float:
    """The mean over the ranks."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(tensor)
    return float(tensor) / world_size()


def any_rank(flag: bool) -> bool:
    """Whether any rank says so: all agree."""
    return bool(mean(float(flag))) if world_size() > 1 else flag
