"""DiffuLex Edge: train, run, judge and ship diffusion language models on small hardware.

    denoiser, tokenizer = diffulex_edge.load("aria-hindi-tiny")
    print(diffulex_edge.generate(denoiser, tokenizer, "मैं कल बाज़ार गया"))

Importing this package is silent and does not import torch: each name below is fetched when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffulex_edge.api import load as load
    from diffulex_edge.runtime.decode import decode as decode
    from diffulex_edge.runtime.official import official_plan as official_plan
    from diffulex_edge.runtime.plan import Plan as Plan
    from diffulex_edge.runtime.text import generate as generate
    from diffulex_edge.runtime.text import infill as infill

__version__ = "0.1.0"

_PUBLIC = {
    "load": "diffulex_edge.api",
    "decode": "diffulex_edge.runtime.decode",
    "Plan": "diffulex_edge.runtime.plan",
    "official_plan": "diffulex_edge.runtime.official",
    "generate": "diffulex_edge.runtime.text",
    "infill": "diffulex_edge.runtime.text",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'diffulex_edge' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
