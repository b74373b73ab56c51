"""Which class a model type names. Classes are imported when asked for."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any

from diffulex_edge.errors import ArtefactError, UsageError

FAMILIES = {  # model_type -> module, class, config class
    "eco_hybrid": ("diffulex_edge.model.eco_hybrid", "EcoHybrid", "EcoHybridConfig"),
    "transformer": ("diffulex_edge.model.transformer", "TransformerDenoiser", "TransformerConfig"),
    "llada": ("diffulex_edge.model.llada_edge", "LLaDAEdge", "LLaDAEdgeConfig"),
    "Dream": ("diffulex_edge.model.dream_edge", "DreamEdge", "DreamEdgeConfig"),
    "sdar": ("diffulex_edge.model.sdar_edge", "SDAREdge", "SDAREdgeConfig"),
    "Fast_dLLM_Qwen": ("diffulex_edge.model.fast_dllm_v2_edge", "FastdLLMV2Edge", "FastdLLMV2EdgeConfig"),
}
# Seed 001's names, and that of their rival.
ALIASES = {"primary": "eco_hybrid", "backup": "transformer", "causal": "transformer"}
SETTINGS: dict[str, dict[str, Any]] = {"causal": {"block_length": 1}}  # what an alias says beside the family


def family(name: str) -> str:
    name = ALIASES.get(name, name)
    if name not in FAMILIES:
        raise UsageError(f"model {name!r} is not one of {', '.join([*ALIASES, *FAMILIES])}")
    return name


def config_class(name: str) -> Any:
    module, _, config = FAMILIES[family(name)]
    return getattr(import_module(module), config)


def build(name: str, config: Any) -> Any:
    """A freshly initialised denoiser of the family, on the CPU, in fp32."""
    module, model, _ = FAMILIES[family(name)]
    return getattr(import_module(module), model)(config)


def config_from_dict(name: str, values: Any, source: str) -> Any:
    """A config out of a file: every field known, none missing a meaning. Raises ArtefactError naming the source."""
    if name not in FAMILIES:
        raise ArtefactError(f"{source}: model_type {name!r} is not one of {', '.join(FAMILIES)}")
    kind = config_class(name)
    known = {field.name for field in fields(kind)}
    if not isinstance(values, dict) or set(values) - known:
        unknown = sorted(set(values) - known) if isinstance(values, dict) else values
        raise ArtefactError(f"{source}: unknown field of {kind.__name__}: {unknown}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"{source}: {error}") from None
