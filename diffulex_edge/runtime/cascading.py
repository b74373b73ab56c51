"""How risks become exits: the numbers of a cascade, which calibration, a user or `sedac train` chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.early_exit import SedacExit
from diffulex_edge.sedac.controller import CascadeController, LayerConfig
from diffulex_edge.sedac.probe import Risk


@dataclass(frozen=True, kw_only=True)
class Cascading:
    """How the risks at the checkpoints become exits; `scale` is what calibration chooses."""

    weight: float = 0.5  # what a layer's confidence counts for
    weights: tuple[float, ...] = ()  # the same, checkpoint by checkpoint; none: `weight` for each
    exit_confidence: float = 0.3  # a token exits when its confidence reaches it
    decay: float = 0.9  # of the confidence, from checkpoint to checkpoint
    fade: float = 0.0  # faster where more is hidden: decay * (1 - fade * share of the block that is hidden)
    routes: tuple[float, ...] = ()  # of thresholds, where the nearest token shown is of no script, Devanagari, Latin
    learned: bool = False  # weights, decay, fade and routes as `sedac train` learned them
    soft: bool = True  # thin the channels out; off: none is left from the exit on
    ends: bool = True  # leave whole layers out once all hidden tokens have exited
    levels: int = 4  # in which the share of channels is counted

    def exits(self, probes: Mapping[int, Risk], scale: float, kinds: Tensor | None = None) -> SedacExit:
        """The controller whose thresholds of risk are all `scale`: the larger, the earlier tokens exit.

        kinds (V,): of each token, for `routes`. Raises UsageError for weights or routes that do not fit.
        """
        weights = self.weights or (self.weight,) * len(probes)
        if len(weights) != len(probes):
            raise UsageError(f"weights={self.weights} must be {len(probes)} numbers, one a checkpoint")
        routes = self._routes(kinds)
        layers = [
            LayerConfig(
                layer_idx=layer,
                target_exit_rate=0.5,  # thresholds are calibrated, not tracked
                initial_threshold=scale,
                confidence_weight=weight,
                exit_confidence=self.exit_confidence,
            )
            for layer, weight in zip(sorted(probes), weights, strict=True)
        ]
        controller = CascadeController(layers, confidence_decay=self.decay, soft_exit_enabled=self.soft)
        more: dict[str, Any] = {"fade": self.fade, "routes": routes, "kinds": kinds}
        return SedacExit(controller=controller, probes=probes, levels=self.levels, ends=self.ends, **more)

    def _routes(self, kinds: Tensor | None) -> Tensor | None:
        if not self.routes:
            return None
        if kinds is None:
            raise UsageError("routes go by the script of tokens, which this folder does not know: `sedac train` again")
        if len(self.routes) <= int(kinds.max()) or min(self.routes) <= 0:
            raise UsageError(f"routes={self.routes} must be {int(kinds.max()) + 1} numbers above 0, one a script")
        return torch.tensor(self.routes)
