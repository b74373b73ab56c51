"""Does a probability mean what it says? Expected calibration error and the area under the risk-coverage curve."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


@dataclass
class Guesses:
    """The likeliest token at masked positions of held-out text: its probability, whether it is right, and the noise."""

    confidence: list[Tensor] = field(default_factory=list)  # (n,) each
    correct: list[Tensor] = field(default_factory=list)
    noise: list[Tensor] = field(default_factory=list)  # share of the window that was masked

    def __call__(self, logits: Tensor, targets: Tensor, noise: Tensor) -> None:
        """Notes logits (n, V) in nats (normalised), targets (n,) and noise (n,)."""
        top = logits.max(1)
        self.confidence.append(top.values.exp())
        self.correct.append(top.indices == targets)
        self.noise.append(noise)

    def arrays(self) -> tuple[Floats, Floats, Floats]:
        """Confidence, correctness and noise, each (n,), in double precision."""
        confidence, correct, noise = (
            torch.cat(part).double().numpy() for part in (self.confidence, self.correct, self.noise)
        )
        return confidence, correct, noise


def ece(confidence: Floats, correct: Floats, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, by size: Guo et al., arXiv:1706.04599."""
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gap = np.bincount(which, confidence - correct, bins)
    return float(np.abs(gap).sum() / len(confidence))


def aurc(confidence: Floats, correct: Floats) -> float:
    """Mean, over every coverage, of the error rate among the most confident. Geifman and El-Yaniv, arXiv:1805.08206.

    Guesses of equal confidence share their errors evenly, so the order of the input does not matter.
    """
    values, group, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, 1 - correct, len(values)) / sizes
    errors = np.cumsum(np.repeat(wrong, sizes))
    return float((errors / np.arange(1, len(errors) + 1)).mean())
