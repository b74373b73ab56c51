"""SEDAC's controller: confidence gathered across layers, causal exits, thresholds that track a rate (seed 004).

At a checkpoint layer i each token has a risk r. While the token has not exited:

    conf = (theta_i - r) / theta_i            then 0 where it is not above 0 (or not a number), then at most 1
    C    = gamma * C + w_i * conf             C starts at 0
    exit at layer i when C >= exit_confidence_i

From its exit on a token's C is frozen, and the share of FFN channels to skip is

    ratio = tanh(C + C - 1) * 0.5 + 0.5       or 1 where soft_exit_enabled is False: the hard exit of V6.0

and 0 until then: no layer after the exit has a say in it, as none has been computed for that token.

This is the specification. Every operation above is one float32 operation, rounded, in the order written: no product is
fused into a sum and no division becomes a product with a reciprocal. So all kernels agree exactly on the layer of every
exit, boundary cases included; they agree on ratios to 1e-6, as each has its own tanh.

Clamping conf to [0, 1] keeps one bad layer from erasing what the others found, and costs a bias: with noise of standard
deviation s around a risk at the threshold, the expected conf is s / (theta sqrt(2 pi)) and not 0. C is not bounded by
1: with many checkpoints it tends to w / (1 - gamma). With the seed's three weights it is at most 0.903.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from diffulex_edge.errors import UsageError
from diffulex_edge.sedac.decision import NO_EXIT, ExitDecisions
from diffulex_edge.sedac.kernel import Cascade, Floats, Kernel, Layers, NumpyKernel

SWITCH = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True)
class LayerConfig:
    """One checkpoint of a cascade.

    The seed gives `target_exit_rate` two meanings that differ in unit. Here it is the share of samples that
    `update_threshold` steers to; the confidence at which a token exits is `exit_confidence`, by default as large.
    """

    layer_idx: int  # the model's layer, from 0, after which risk is estimated
    target_exit_rate: float  # share of samples below the threshold that update_threshold steers to
    initial_threshold: float  # risk at which confidence is 0
    confidence_weight: float  # w: what this layer's confidence counts for
    exit_confidence: float | None = None  # a token exits when C reaches it; None: target_exit_rate, as the seed has it

    def __post_init__(self) -> None:
        if self.layer_idx < 0:
            raise UsageError(f"{self.layer_idx=} must not be negative")
        if not 0 < self.target_exit_rate < 1:
            raise UsageError(f"{self.target_exit_rate=} must lie between 0 and 1")
        for name in ("initial_threshold", "confidence_weight"):
            if not (0 < getattr(self, name) < math.inf):
                raise UsageError(f"{name}={getattr(self, name)} must be a number above 0")
        if not self.exits_at >= 0:
            raise UsageError(f"{self.exit_confidence=} must be 0 (all exit) or more; inf for none")

    @property
    def exits_at(self) -> float:
        return self.target_exit_rate if self.exit_confidence is None else self.exit_confidence


SEED_LAYERS = (LayerConfig(7, 0.2, 0.8, 0.3), LayerConfig(14, 0.5, 1.0, 0.4), LayerConfig(21, 0.8, 1.2, 0.3))


class CascadeController:
    """Decides which tokens exit where. Thresholds move by `update_threshold`, which threads may call at once."""

    def __init__(
        self,
        layer_configs: Sequence[LayerConfig],
        alpha: float = 0.01,  # step of the tracker, in units of risk
        confidence_decay: float = 0.9,  # gamma
        soft_exit_enabled: bool = True,  # False: ratio 1 from the exit on
        *,
        kernel: type[NumpyKernel] | None = None,  # what computes; None: the Rust core where it is installed, else NumPy
    ) -> None:
        layers = [config.layer_idx for config in layer_configs]
        if not layers or layers != sorted(set(layers)):
            raise UsageError(f"layer_idx must rise from checkpoint to checkpoint, and there must be one: {layers}")
        if not (0 < alpha < math.inf and 0 <= confidence_decay <= 1):
            raise UsageError(f"{alpha=} must be above 0 and {confidence_decay=} from 0 to 1")
        self.layer_configs = tuple(layer_configs)
        self.alpha, self.confidence_decay, self.soft_exit_enabled = alpha, confidence_decay, soft_exit_enabled
        self.kernel: Kernel = (kernel or NumpyKernel)(self._cascade())
        self._at = {layer: at for at, layer in enumerate(layers)}

    @classmethod
    def from_env(
        cls, layer_configs: Sequence[LayerConfig] = SEED_LAYERS, env: Mapping[str, str] = os.environ, **settings: Any
    ) -> Self:
        """A controller as SEDAC_CONFIDENCE_DECAY, SEDAC_SOFT_EXIT and SEDAC_LAYER_WEIGHTS say, where they are set.

        settings: the constructor's; the environment overrides them. Raises UsageError on values that are none.
        """
        if (weights := env.get("SEDAC_LAYER_WEIGHTS")) is not None:
            numbers = [_number("SEDAC_LAYER_WEIGHTS", word) for word in weights.split(",")]
            if len(numbers) != len(layer_configs):
                raise UsageError(
                    f"SEDAC_LAYER_WEIGHTS={weights} must be {len(layer_configs)} numbers, one a checkpoint"
                )
            layer_configs = [
                replace(config, confidence_weight=w) for config, w in zip(layer_configs, numbers, strict=True)
            ]
        if (decay := env.get("SEDAC_CONFIDENCE_DECAY")) is not None:
            settings["confidence_decay"] = _number("SEDAC_CONFIDENCE_DECAY", decay)
        if (soft := env.get("SEDAC_SOFT_EXIT")) is not None:
            if soft.lower() not in SWITCH:
                raise UsageError(f"SEDAC_SOFT_EXIT={soft} must be one of {', '.join(SWITCH)}")
            settings["soft_exit_enabled"] = SWITCH[soft.lower()]
        return cls(layer_configs, **settings)

    @property
    def layers(self) -> tuple[int, ...]:
        """The model's layers after which `observe` wants the risks."""
        return tuple(self._at)

    @property
    def thresholds(self) -> dict[int, float]:
        """The risk threshold now, by the model's layer."""
        return dict(zip(self.layers, map(float, self.kernel.thresholds()), strict=True))

    def at(self, layer_idx: int) -> int:
        """Which checkpoint a layer of the model is, from 0."""
        if layer_idx not in self._at:
            raise UsageError(f"{layer_idx=} is no checkpoint: those are after layers {', '.join(map(str, self._at))}")
        return self._at[layer_idx]

    def start(self, n: int) -> CascadeState:
        """The state of n tokens before the first checkpoint, with the thresholds of this moment."""
        return CascadeState(self, self.kernel.thresholds(), *_blank(n))

    def evaluate_batch(self, risk_scores: ArrayLike) -> ExitDecisions:
        """The decisions for risks (n tokens, checkpoints) all known: what `observe`, layer by layer, would say.

        Fewer columns than there are checkpoints decide as far as they go.
        """
        risk = np.ascontiguousarray(risk_scores, dtype=np.float32)
        if risk.ndim != 2 or not 1 <= risk.shape[1] <= len(self.layers):
            raise UsageError(f"{risk.shape=} must be (tokens, 1 to {len(self.layers)} checkpoints)")
        arrays = _blank(len(risk))
        self.kernel.evaluate(risk, *arrays)
        return ExitDecisions(*arrays)

    def update_threshold(self, layer_idx: int, samples: ArrayLike) -> float:
        """Moves the threshold after the model's layer `layer_idx` one step, and gives the new one.

        theta += alpha * (target_exit_rate - share of samples below theta): the subgradient of the quantile loss, whose
        rest is the quantile itself at any batch size, one included (a moving average of batch quantiles tends to the
        mean of single samples instead). With risks for samples the target is the share of tokens with some confidence;
        with `CascadeState.needed` it is the share that has exited by this layer. Never below 1e-6.
        """
        values = np.ascontiguousarray(samples, dtype=np.float32).reshape(-1)
        if not len(values):
            raise UsageError("update_threshold needs at least one sample")
        return self.kernel.update(self.at(layer_idx), values)

    def _cascade(self) -> Cascade:
        configs = self.layer_configs
        return Cascade(
            layer_idx=np.array([config.layer_idx for config in configs], np.int32),
            target_exit_rate=np.array([config.target_exit_rate for config in configs], np.float32),
            threshold=np.array([config.initial_threshold for config in configs], np.float32),
            weight=np.array([config.confidence_weight for config in configs], np.float32),
            exit_confidence=np.array([config.exits_at for config in configs], np.float32),
            alpha=np.float32(self.alpha),
            decay=np.float32(self.confidence_decay),
            soft=self.soft_exit_enabled,
        )


@dataclass(eq=False)
class CascadeState:
    """n tokens on their way through the layers: `observe` at each checkpoint, in order; some may be left out."""

    controller: CascadeController
    thresholds: Floats  # (K,), of the moment this began
    exit_layer: Layers  # (n,)
    confidence: Floats  # (n,)
    ratio: Floats  # (n,)
    _next: int = field(default=0, repr=False)  # checkpoint

    def observe(self, layer_idx: int, risk: ArrayLike) -> Floats:
        """Takes the risks (n,) after the model's layer `layer_idx`; gives the share of channels to skip from now on."""
        at, values = self._take(layer_idx, risk)
        self.controller.kernel.observe(at, self.thresholds[at], values, self.exit_layer, self.confidence, self.ratio)
        self._next = at + 1
        return self.ratio.copy()

    def needed(self, layer_idx: int, risk: ArrayLike) -> Floats:
        """The threshold (n,) above which each token would exit at this checkpoint; asked before `observe`.

        0 for tokens that have exited or will whatever their risk, inf for those that no threshold brings to exit.
        As samples of `update_threshold` these make `target_exit_rate` the share that has exited by this layer.
        """
        at, values = self._take(layer_idx, risk)
        config = self.controller.layer_configs[at]
        conf = (config.exits_at - self.controller.confidence_decay * self.confidence) / config.confidence_weight
        with np.errstate(divide="ignore", invalid="ignore"):
            least = np.where(conf < 1, np.maximum(values, 0) / (1 - conf), np.inf)
        return np.where((self.exit_layer != NO_EXIT) | (conf <= 0), 0, least).astype(np.float32)

    def decisions(self) -> ExitDecisions:
        """What has been decided so far; later observations do not change it."""
        return ExitDecisions(self.exit_layer.copy(), self.confidence.copy(), self.ratio.copy())

    def _take(self, layer_idx: int, risk: ArrayLike) -> tuple[int, Floats]:
        at, values = self.controller.at(layer_idx), np.ascontiguousarray(risk, dtype=np.float32)
        if at < self._next:
            raise UsageError(f"{layer_idx=} has been observed or passed: a decision takes layers in order")
        if values.shape != self.ratio.shape:
            raise UsageError(f"risk is {values.shape}, this began with {len(self.ratio)} tokens")
        return at, values


def _blank(n: int) -> tuple[Layers, Floats, Floats]:
    return np.full(n, NO_EXIT, np.int32), np.zeros(n, np.float32), np.zeros(n, np.float32)


def _number(name: str, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise UsageError(f"{name}: {word.strip()!r} is not a number") from None
