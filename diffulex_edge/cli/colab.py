"""`colab`: from nothing to a trained model; prepares Hindi text on its way, the built-in grammar's if need be."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffulex_edge.cli import prepare, train
from diffulex_edge.errors import BackendUnavailable, ResourceError
from diffulex_edge.text.prepare import PrepareConfig
from diffulex_edge.train.recipe import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Prepares Hindi text if data_dir holds none, then trains on it: the flags are those of `train`."""

    config: TrainConfig = TrainConfig()
    source: tuple[str, ...] = ("hindi",)  # where text comes from if there is none yet: as in `prepare`
    tokenizer: Path = PrepareConfig.tokenizer  # where the tokenizer is written, or read from

    @property
    def json(self) -> str | None:
        return self.config.json


def run(flags: Flags) -> dict[str, Any]:
    folder = flags.config.data_dir
    if not (folder / "meta.json").exists():
        wanted = PrepareConfig(source=flags.source, data_dir=folder, tokenizer=flags.tokenizer)
        try:
            prepare.run(prepare.Flags(config=wanted))
        except (BackendUnavailable, ResourceError) as error:
            print(f"no Hindi text from the hub ({error}); going on with the built-in grammar instead", file=sys.stderr)
            prepare.run(prepare.Flags(config=replace(wanted, source=("demo",))))
    return train.run(flags.config)
