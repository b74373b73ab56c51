"""What a user says of SEDAC: the section "sedac" of a model's config.json, or of vLLM's `hf_overrides`.

    {"blocks": 8, "confidence_decay": 0.9, "checkpoints": [
        {"layer_idx": 7, "target_exit_rate": 0.2, "initial_threshold": 0.8, "confidence_weight": 0.3}]}

A checkpoint has the fields of `LayerConfig` (sedac/controller.py). Thresholds stay as given: serving does not move
them, since what was calibrated holds for the thresholds that it was calibrated with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from diffulex_edge.errors import UsageError
from diffulex_edge.sedac import CascadeController, LayerConfig

SECTION = "sedac"


@dataclass(frozen=True, kw_only=True)
class SedacSettings:
    """How a model's feed-forwards shrink."""

    checkpoints: tuple[LayerConfig, ...]  # layers behind which a probe is asked, in their order
    blocks: int = 8  # equal parts of a feed-forward's channels; each exited token runs the first few
    confidence_decay: float = 0.9  # gamma of the cascade
    soft_exit: bool = True  # False: an exited token runs no feed-forward at all (the hard exit of V6.0)
    probes: str = "sedac/probes.safetensors"  # file of the probes, in the model's folder; not beside the weights:
    # vLLM loads every safetensors file there

    def __post_init__(self) -> None:
        if not isinstance(self.blocks, int) or not 1 <= self.blocks <= 64:
            raise UsageError(f"{SECTION}: blocks={self.blocks!r} must be an integer from 1 to 64")
        if not isinstance(self.soft_exit, bool):
            raise UsageError(f"{SECTION}: soft_exit={self.soft_exit!r} must be true or false")

    @classmethod
    def read(cls, section: Any) -> SedacSettings:
        """From the section as JSON gives it. Raises UsageError on what is missing, unknown or no value, naming it."""
        if not isinstance(section, Mapping):
            raise UsageError(
                f'the model has no section "{SECTION}": hf_overrides={{"{SECTION}": ...}}, or its config.json'
            )
        said = dict(_known(cls, section, SECTION))
        checkpoints = said.pop("checkpoints", None)
        if not isinstance(checkpoints, list) or not checkpoints:
            raise UsageError(f"{SECTION}: checkpoints={checkpoints!r} must be a list, one entry a checkpoint layer")
        try:
            layers = tuple(LayerConfig(**_known(LayerConfig, each, "checkpoint")) for each in checkpoints)
            settings = cls(checkpoints=layers, **said)
            settings.controller()
        except TypeError as error:
            raise UsageError(f"{SECTION}: {error}") from None
        return settings

    def controller(self) -> CascadeController:
        """The cascade, with the thresholds it begins with."""
        return CascadeController(
            self.checkpoints, confidence_decay=self.confidence_decay, soft_exit_enabled=self.soft_exit
        )

    def check(self, n_layers: int, n_channels: int) -> None:
        """Raises UsageError where the settings do not fit a model of these sizes."""
        last = self.checkpoints[-1].layer_idx
        if last > n_layers - 2:
            raise UsageError(f"{SECTION}: layer_idx={last} must be before the last of the model's {n_layers} layers")
        if n_channels % self.blocks:
            raise UsageError(
                f"{SECTION}: blocks={self.blocks} does not divide the {n_channels} channels of a feed-forward"
            )


def _known(kind: type, said: Any, where: str) -> dict[str, Any]:
    names = [field.name for field in fields(kind)]
    if not isinstance(said, Mapping):
        raise UsageError(f"{where}: {said!r} must be an object with {', '.join(names)}")
    if unknown := set(said) - set(names):
        raise UsageError(f"{where}: unknown {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return dict(said)
