"""The cascade's step on tensors: pure, no branch on data, fit for a compiled layer loop. The same order of operations.

A compiler that fuses products into sums (Triton does, for GPUs) may move a token that stands on a boundary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffulex_edge.sedac.controller import CascadeController


class TensorLayer(NamedTuple):
    """The numbers of one checkpoint, float32 scalars on the device.

    Tensors, since PyTorch divides by a number on a GPU by way of its reciprocal, and compiles anew for a new one.
    """

    threshold: Tensor
    weight: Tensor
    exit_confidence: Tensor
    decay: Tensor


class TensorStep(NamedTuple):
    """n tokens after a checkpoint, all (n,), or of any one shape."""

    confidence: Tensor  # float32
    exited: Tensor  # bool
    ratio: Tensor  # float32: the share of FFN channels to skip


def tensor_layers(controller: CascadeController, device: torch.device | str = "cpu") -> dict[int, TensorLayer]:
    """By the model's layer: its numbers with the thresholds of this moment."""
    numbers = zip(controller.layer_configs, controller.thresholds.values(), strict=True)
    return {
        config.layer_idx: TensorLayer(
            *(
                torch.tensor(value, dtype=torch.float32, device=device)
                for value in (threshold, config.confidence_weight, config.exits_at, controller.confidence_decay)
            )
        )
        for config, threshold in numbers
    }


def begin(like: Tensor) -> TensorStep:
    """Before the first checkpoint: no confidence, none exited; of like's shape and device."""
    zeros = torch.zeros_like(like, dtype=torch.float32)
    return TensorStep(zeros, torch.zeros_like(like, dtype=torch.bool), zeros)


def step(confidence: Tensor, exited: Tensor, risk: Tensor, layer: TensorLayer, soft: bool = True) -> TensorStep:
    """One checkpoint (controller.py): what is known of the tokens, and their risk in float32, become the next state."""
    conf = (layer.threshold - risk) / layer.threshold
    conf = torch.where(conf > 0, conf, 0.0).clamp(max=1.0)
    confidence = torch.where(exited, confidence, layer.decay * confidence + layer.weight * conf)
    exited = exited | (confidence >= layer.exit_confidence)
    ratio = torch.tanh(confidence + confidence - 1.0) * 0.5 + 0.5 if soft else torch.ones_like(confidence)
    return TensorStep(confidence, exited, torch.where(exited, ratio, 0.0))
