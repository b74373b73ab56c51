"""What binding/src/lib.rs offers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

INTERFACE: int

class Cascade:
    """A kernel: `diffulex_edge.sedac.kernel.Kernel`. Arrays are contiguous; outputs are written in place."""

    def __init__(
        self, layers: Sequence[tuple[int, float, float, float, float]], alpha: float, decay: float, soft: bool
    ) -> None: ...
    def thresholds(self) -> list[float]: ...
    def update(self, at: int, samples: NDArray[np.float32]) -> float: ...
    def observe(
        self,
        at: int,
        threshold: float,
        risk: NDArray[np.float32],
        exit_layer: NDArray[np.int32],
        confidence: NDArray[np.float32],
        ratio: NDArray[np.float32],
    ) -> None: ...
    def evaluate(
        self,
        risk: NDArray[np.float32],
        exit_layer: NDArray[np.int32],
        confidence: NDArray[np.float32],
        ratio: NDArray[np.float32],
    ) -> None: ...
