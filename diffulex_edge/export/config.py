"""What to export a model as, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffulex_edge.errors import UsageError

SUFFIX = ".json"  # of the description beside a program: model.pte.json


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Shapes are fixed when a program is made."""

    backend: str = "xnnpack"  # xnnpack, openvino, coreml or qnn in a .pte; openvino_ir or mlpackage, their makers' own
    quantization: str | None = None  # dynamic_int8 or another of quant's schemes; None: as the model is
    context: str | None = None  # memory, kv or canvas; None: the first of these that the model has
    block_size: int | None = None  # tokens decoded together; None: 32, or the model's own block where that is longer
    max_length: int = 512  # tokens, prompt and answer together; EcoHybrid's memory has no such limit
    buckets: tuple[int, ...] | None = None  # shorter canvases with looks of their own; None: halves, down to 128 tokens
    prefill: int = 0  # tokens of a prompt that a cache takes in at once, a multiple of the block; 0: a block
    depths: tuple[int, ...] = ()  # a denoise method for each of these numbers of layers, beside the full one

    def __post_init__(self) -> None:
        for name in ("block_size", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}={value} must be at least 1")
        if self.prefill < 0:
            raise UsageError(f"prefill={self.prefill} must be at least 0")


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """A program on the disk."""

    path: Path
    size_bytes: int
    sha256: str
    backend: str
    quantization: str | None
    methods: tuple[str, ...]
    outside: dict[str, dict[str, int]] = field(default_factory=dict)  # method -> operator -> how often, not delegated
    description: dict[str, Any] = field(default_factory=dict, repr=False)  # what the file beside it says
