"""`train`: the flags are those of TrainConfig; the loop is in train/."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffulex_edge.api import locate
from diffulex_edge.cli.parse import console
from diffulex_edge.train.loop import train
from diffulex_edge.train.recipe import TrainConfig

Flags = TrainConfig


def run(flags: TrainConfig) -> dict[str, Any]:
    if flags.init is not None:
        flags = replace(flags, init=str(locate(flags.init)))
    outcome = train(flags)
    console(flags.json).print(f"step {outcome['step']}: {flags.output_dir} holds the newest checkpoint", markup=False)
    return outcome
