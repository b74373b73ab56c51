"""Everything that a resumed run needs to go on as if it had not stopped, and how it becomes a checkpoint and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import ArtefactError
from diffulex_edge.files import read_json
from diffulex_edge.model import checkpoint
from diffulex_edge.train.optim import Ema


@dataclass
class Progress:
    """Counters of a run."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    skipped: int = 0  # steps whose loss or gradient was not finite
    rollbacks: int = 0  # returns to the last checkpoint after too many of those in a row
    ema_updates: int = 0


@dataclass
class TrainState:
    """The live objects of a run."""

    model: Any  # a Denoiser that is an nn.Module
    optimizers: list[torch.optim.Optimizer]
    ema: Ema
    progress: Progress = field(default_factory=Progress)


def save(
    folder: Path, state: TrainState, *, config: dict[str, Any], run: dict[str, Any], tokenizer: dict[str, bytes]
) -> None:
    """Writes a checkpoint; a state with a weight that is not finite is refused by ArtefactError.

    tokenizer: the content of its files by name.
    """
    weights = dict(state.model.named_parameters())
    if not all(bool(torch.isfinite(p).all()) for p in weights.values()):
        raise ArtefactError(f"{folder}: not written: the weights are not finite")
    state.progress.ema_updates = state.ema.updates
    checkpoint.write(
        folder,
        {
            "model.safetensors": checkpoint.tensors(weights),
            "ema.safetensors": checkpoint.tensors(state.ema.weights),
            "optimizer.safetensors": checkpoint.tensors(_optimizer_tensors(state)),
            "state.json": checkpoint.document({"progress": vars(state.progress), "run": run}),
            "config.json": checkpoint.document(config),
            **{name: checkpoint.content(content) for name, content in tokenizer.items()},
        },
    )


def load(folder: Path, state: TrainState) -> None:
    """Restores a verified checkpoint into the live objects."""
    checkpoint.place(state.model, checkpoint.read_tensors(folder / "model.safetensors"), folder / "model.safetensors")
    averaged = checkpoint.read_tensors(folder / "ema.safetensors")
    state.ema.weights = {name: averaged[name].to(p.device) for name, p in state.model.named_parameters()}  # its order
    state.progress = Progress(**read_json(folder / "state.json")["progress"])
    state.ema.updates = state.progress.ema_updates
    _restore_optimizers(checkpoint.read_tensors(folder / "optimizer.safetensors"), state)


def read_run(folder: Path) -> dict[str, Any]:
    """What the run that wrote this checkpoint was: its recipe and its data."""
    return read_json(folder / "state.json")["run"]


def _names(state: TrainState) -> dict[int, str]:
    return {id(p): name for name, p in state.model.named_parameters()}


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    names, values = _names(state), {}
    for optimizer in state.optimizers:
        for parameter, slots in optimizer.state.items():
            for slot, value in slots.items():
                values[f"{names[id(parameter)]}/{slot}"] = value
    return values


def _restore_optimizers(values: dict[str, Tensor], state: TrainState) -> None:
    slots_of: dict[str, dict[str, Tensor]] = {}
    for key, value in values.items():
        name, _, slot = key.rpartition("/")
        slots_of.setdefault(name, {})[slot] = value
    names = _names(state)
    for optimizer in state.optimizers:
        optimizer.state.clear()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if names[id(parameter)] in slots_of:
                    slots = slots_of[names[id(parameter)]]
                    optimizer.state[parameter] = {slot: value.to(parameter.device) for slot, value in slots.items()}
