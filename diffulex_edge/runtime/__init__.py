"""Decoding with denoisers. Public names are fetched when first used: importing this loads no torch.

`decode` itself is `diffulex_edge.decode`: here that name is the module it stands in.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "diffusion": ("DiffusionEngine", "DiffusionGenerationConfig"),
    "diffusion_blocks": ("DiffusionBlock", "DiffusionBlockManager"),
    "diffusion_sampler": ("DiffusionSampler", "SampleOutput"),
    "engine": ("GenerationConfig", "InferenceEngine"),
    "guidance": ("Guided",),
    "plan": ("Plan",),
    "sampler": ("Sampler",),
    "sampler_names": ("GreedySampler", "TemperatureSampler", "TopKSampler", "TopPSampler", "get_sampler"),
}
_PUBLIC = {name: f"diffulex_edge.runtime.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'diffulex_edge.runtime' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
