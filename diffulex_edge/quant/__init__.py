"""Fewer bits a number: schemes, and the model in them. Names are fetched when first used; this loads no torch.

quantize(model, find_scheme("dynamic_int8")) gives a new model; the one that was given stays as it is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diffulex_edge.quant.schemes import SCHEMES, Scheme, find_scheme

if TYPE_CHECKING:
    from diffulex_edge.quant.calibration import Calibration as Calibration
    from diffulex_edge.quant.calibration import calibrating as calibrating
    from diffulex_edge.quant.quantizer import DiffuLexQuantizer as DiffuLexQuantizer
    from diffulex_edge.quant.quantizer import QuantizationConfig as QuantizationConfig
    from diffulex_edge.quant.quantizer import QuantizationMode as QuantizationMode
    from diffulex_edge.quant.quantizer import QuantizationScheme as QuantizationScheme
    from diffulex_edge.quant.quantizer import quantize as quantize

__all__ = ["SCHEMES", "Scheme", "find_scheme"]

_PUBLIC = {
    "Calibration": "diffulex_edge.quant.calibration",
    "calibrating": "diffulex_edge.quant.calibration",
    **dict.fromkeys(
        ("quantize", "DiffuLexQuantizer", "QuantizationConfig", "QuantizationMode", "QuantizationScheme"),
        "diffulex_edge.quant.quantizer",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'diffulex_edge.quant' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
