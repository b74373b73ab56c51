"""What a cascade decided: three arrays, and a view of them token by token for who wants one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

NO_EXIT = -1  # in place of a layer


class ExitDecision(NamedTuple):
    """What was decided for one token. Made when it is asked for: a batch is arrays, not objects."""

    exit_layer: int  # the model's layer number; -1: none
    accumulated_confidence: float  # C, as it stood at the exit or after the last layer that was observed
    soft_exit_ratio: float  # share of the FFN's channels to skip from the exit on; 0 without one

    @property
    def should_exit(self) -> bool:
        return self.exit_layer != NO_EXIT


@dataclass(frozen=True, eq=False)
class ExitDecisions(Sequence[ExitDecision]):
    """The decisions for n tokens: a sequence of ExitDecision over three arrays (n,)."""

    exit_layer: NDArray[np.int32]
    accumulated_confidence: NDArray[np.float32]
    soft_exit_ratio: NDArray[np.float32]

    @property
    def should_exit(self) -> NDArray[np.bool_]:
        return self.exit_layer != NO_EXIT

    def __len__(self) -> int:
        return len(self.exit_layer)

    @overload
    def __getitem__(self, index: int) -> ExitDecision: ...
    @overload
    def __getitem__(self, index: slice) -> ExitDecisions: ...
    def __getitem__(self, index: int | slice) -> ExitDecision | ExitDecisions:
        layer, confidence, ratio = (
            self.exit_layer[index],
            self.accumulated_confidence[index],
            self.soft_exit_ratio[index],
        )
        if isinstance(index, slice):
            return ExitDecisions(layer, confidence, ratio)
        return ExitDecision(int(layer), float(confidence), float(ratio))
