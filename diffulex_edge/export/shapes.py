"""Which graph of a model is exported, and of what shapes; those that do not fit are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, takewhile
from typing import Any

from diffulex_edge.errors import UsageError
from diffulex_edge.export.canvas_graph import CanvasGraph
from diffulex_edge.export.config import ExportConfig
from diffulex_edge.export.graph import CacheGraph, Graph, MemoryGraph
from diffulex_edge.export.openvino_ir import IR

BLOCK = 32  # tokens
SHORTEST = 128  # tokens of a bucket: below, a look costs little less


def make_graph(model: Any, config: ExportConfig, banned: Sequence[int] = ()) -> Graph:
    """The model with the context that is asked for, or the first that can be exported."""
    kinds = [kind for kind in model.spec.contexts if kind in _GRAPHS]
    kind = config.context or next(iter(kinds), "")
    if kind not in kinds:
        raise UsageError(f"context {kind!r} of {type(model).__name__} cannot be exported; it has {', '.join(kinds)}")
    size = config.block_size or max(BLOCK, model.spec.block_length or 1)
    own = model.spec.block_length or 1
    if size % own:
        raise UsageError(f"block_size={size} is not a multiple of {own}, the block length of the model")
    limit = model.spec.contexts[kind]
    if limit is not None and config.max_length > limit:
        raise UsageError(f"max_length={config.max_length} is longer than the {limit} tokens that the model takes")
    if config.max_length % size:
        raise UsageError(f"max_length={config.max_length} is not a multiple of block_size={size}")
    wrong = [depth for depth in config.depths if not 1 <= depth < model.spec.n_layers]
    if wrong:
        raise UsageError(
            f"depths hold {wrong[0]}: each is at least 1 and below the model's {model.spec.n_layers} layers"
        )
    for name in ("buckets", "prefill"):
        if getattr(config, name) and name not in _LENGTHS[kind]:
            raise UsageError(f"{name}={getattr(config, name)}: a program of context {kind!r} has none")
    made: Graph = _GRAPHS[kind](model, size, sorted({*banned, model.spec.mask_id}), config)
    return made


def _canvas(model: Any, size: int, banned: Sequence[int], config: ExportConfig) -> CanvasGraph:
    """A look costs as much as its canvas is long, whatever stands there: texts that are shorter have shorter ones."""
    wrong = [length for length in config.buckets or () if not size <= length < config.max_length]
    if wrong:
        raise UsageError(
            f"buckets hold {wrong[0]}: each is at least block_size={size} and below max_length={config.max_length}"
        )
    halves = (config.max_length >> i for i in count(1))
    usual = () if config.backend == IR else tuple(takewhile(lambda n: n >= max(SHORTEST, size), halves))
    return CanvasGraph(model, size, banned, config.max_length, usual if config.buckets is None else config.buckets)


def _cache(model: Any, size: int, banned: Sequence[int], config: ExportConfig) -> CacheGraph:
    if config.prefill % size or config.prefill > config.max_length:
        raise UsageError(
            f"prefill={config.prefill} is not a multiple of block_size={size} up to max_length={config.max_length}"
        )
    return CacheGraph(model, size, banned, config.max_length, config.prefill)


_LENGTHS = {"memory": (), "kv": ("prefill",), "canvas": ("buckets",)}  # of methods, which the context lets one choose
_GRAPHS: dict[str, Callable[[Any, int, Sequence[int], ExportConfig], Any]] = {
    "memory": lambda model, size, banned, _: MemoryGraph(model, size, banned),
    "kv": _cache,
    "canvas": _canvas,
}
