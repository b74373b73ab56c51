"""What may be promised of a setting that was chosen on data: Learn then Test, and what watches the promise afterwards.

The unit is a sequence, since the tokens of one are not independent; its loss lies in [0, 1]. What is promised holds for
sequences exchangeable with those of the calibration, and against the model it was calibrated on: no more than that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from diffulex_edge.errors import UsageError


def hoeffding_bentkus(risk: float, n: int, level: float) -> float:
    """A p-value of "the true risk is above `level`", from the mean loss `risk` of n sequences, losses in [0, 1].

    min(exp(-n h(min(risk, level), level)), e P(Bin(n, level) <= ceil(n risk))), arXiv:2101.02703, eq. 5.
    """
    _check(n, level)
    if not 0 <= risk <= 1:
        raise UsageError(f"a mean loss of {risk} is not between 0 and 1")
    return min(
        1.0, _hoeffding(min(risk, level), n, level), math.e * binomial_tail(math.ceil(n * risk - 1e-9), n, level)
    )


def binomial_tail(k: int, n: int, level: float) -> float:
    """P(Bin(n, level) <= k): the exact p-value where k of n losses are 1 and the others 0."""
    _check(n, level)
    if k >= n:
        return 1.0
    logs = [_log_choose(n, i) + i * math.log(level) + (n - i) * math.log1p(-level) for i in range(k + 1)]
    return min(1.0, math.fsum(math.exp(x) for x in logs))


def upper_bound(k: int, n: int, delta: float) -> float:
    """Clopper and Pearson's bound on the rate of an event seen k times in n, right with probability 1 - delta."""
    if k >= n:
        return 1.0
    low, high = k / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_tail(k, n, middle) > delta else (low, middle)
    return high


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A setting that was tested: whether the promise may be made of it."""

    risk: float  # mean loss
    p_value: float
    passed: bool


def fixed_sequence(losses: Sequence[Sequence[float]], epsilon: float, delta: float) -> list[Tested]:
    """Learn then Test, arXiv:2110.01052: settings in an order fixed beforehand, the most careful first.

    losses: of each setting one in [0, 1] a sequence. The first that fails ends the test, so all that passed may be
    used: with probability at least 1 - delta none of them has a risk above epsilon.
    """
    found, alive = [], True
    for of_setting in losses:
        if any(not 0 <= loss <= 1 for loss in of_setting):
            raise UsageError("losses must lie between 0 and 1")
        n = len(of_setting)
        risk = math.fsum(of_setting) / max(n, 1)
        hits = [loss for loss in of_setting if loss]
        whole = all(loss == 1 for loss in hits)
        p = binomial_tail(len(hits), n, epsilon) if whole else hoeffding_bentkus(risk, n, epsilon)
        alive = alive and p <= delta
        found.append(Tested(risk=risk, p_value=p, passed=alive))
    return found


def conformal_bounds(losses: Sequence[Sequence[float]]) -> list[float]:
    """Of each setting, what the expected loss of the next sequence is held to be: (n mean + 1) / (n + 1).

    Losses are first made monotone, by a running maximum from setting to setting (arXiv:2208.02814, section 2.1).
    """
    found, worst = [], [0.0] * len(losses[0])
    for of_setting in losses:
        worst = [max(a, b) for a, b in zip(worst, of_setting, strict=True)]
        found.append((math.fsum(worst) + 1) / (len(worst) + 1))
    return found


def conformal(losses: Sequence[Sequence[float]], epsilon: float) -> int | None:
    """Conformal risk control, arXiv:2208.02814: the last setting whose expected loss is at most epsilon; None: none is.

    A promise on the average, where `fixed_sequence` makes one with high probability.
    """
    passed = [i for i, bound in enumerate(conformal_bounds(losses)) if bound <= epsilon]
    return max(passed, default=None)


@dataclass
class SpotChecks:
    """Adaptive conformal inference, arXiv:2106.00170: now and then a sequence is decoded at full depth as well.

    `scale`, which multiplies the risk thresholds, falls where losses are above epsilon and rises where they are below,
    so that over T checks the mean loss is within (max(s, 1 - s) + eta) / (eta T) of epsilon, whatever drifts (s: where
    it began; losses 0 or 1).
    """

    epsilon: float
    eta: float = 0.05  # step of the scale
    scale: float = 1.0
    most: float = 1.0  # the scale that was calibrated: drift may make it smaller, luck never larger
    checks: int = 0
    total: float = 0.0  # of the losses

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < 1 or not self.eta > 0:
            raise UsageError(f"epsilon={self.epsilon} must be between 0 and 1, eta={self.eta} above 0")

    def see(self, loss: float) -> float:
        """Takes the loss of a checked sequence and gives the new scale."""
        if not 0 <= loss <= 1:
            raise UsageError(f"a loss of {loss} is not between 0 and 1")
        self.checks += 1
        self.total += loss
        self.scale = min(self.most, max(0.0, self.scale + self.eta * (self.epsilon - loss)))
        return self.scale


def _hoeffding(risk: float, n: int, level: float) -> float:
    parts = [(risk, level), (1 - risk, 1 - level)]
    return math.exp(-n * math.fsum(a * math.log(a / b) for a, b in parts if a > 0))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _check(n: int, level: float) -> None:
    if n < 1 or not 0 < level < 1:
        raise UsageError(f"a test needs sequences, and a level between 0 and 1: {n=}, {level=}")
