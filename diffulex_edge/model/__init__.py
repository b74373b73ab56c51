"""Denoisers and what they remember. Public names are fetched when first used: importing this loads no torch."""

from importlib import import_module
from typing import Any

from diffulex_edge.model.families import FAMILIES

_PUBLIC = {
    "Context": "diffulex_edge.model.base",
    "Denoiser": "diffulex_edge.model.base",
    "DenoiserSpec": "diffulex_edge.model.base",
    "KVContext": "diffulex_edge.model.kv_cache",
    "KVCache": "diffulex_edge.model.kv_store",
    "KVCacheConfig": "diffulex_edge.model.kv_store",
    "create_kv_caches": "diffulex_edge.model.kv_store",
    **{name: module for module, *names in FAMILIES.values() for name in names},  # the classes and their configs
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'diffulex_edge.model' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
