"""What may run a model on a laptop, and the programs that `tune` makes of it; one made before is not made again."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from diffulex_edge.bench.parity import BUDGETS, budget_of
from diffulex_edge.export.bundle import export_bundle
from diffulex_edge.export.config import SUFFIX, ExportConfig
from diffulex_edge.export.openvino_ir import IR
from diffulex_edge.quant.schemes import find_scheme
from diffulex_edge.runtime.openvino_program import is_openvino_folder
from diffulex_edge.tuning.choice import here, weights_of


@dataclass(frozen=True)
class Engine:
    backend: str | None  # of a program, as `export` knows it; None: PyTorch
    quantization: str | None = None
    precision: str = "fp32"  # of the model itself

    @property
    def budget(self) -> float:
        """The share of bits a character that it may lose."""
        return BUDGETS[16] if self.quantization is None else budget_of(find_scheme(self.quantization))


ENGINES = {
    "eager": Engine(None),
    "eager-bf16": Engine(None, precision="bf16"),
    "xnnpack": Engine("xnnpack"),
    "xnnpack-dynamic_int8": Engine("xnnpack", "dynamic_int8"),
    "xnnpack-dynamic_int4": Engine("xnnpack", "dynamic_int4"),
    "openvino": Engine(IR),
    "openvino-weight_only_int8": Engine(IR, "weight_only_int8"),
}
BASELINE = "eager"


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Where programs of one model are made."""

    model: Any  # a Denoiser of ours in fp32
    source: Path  # the folder it was read from
    tokenizer: Path  # a file, or a folder that holds one
    folder: Path  # for the choice; programs lie in a folder of it
    context: str  # kind
    max_length: int  # tokens

    @cached_property
    def weights(self) -> str:
        return weights_of(self.source)

    @cached_property
    def programs(self) -> Path:
        """Its name is of the weights, versions and length, so that what is in it may be used again."""
        told = json.dumps([self.weights, here(), self.max_length], sort_keys=True)
        return self.folder / f"programs-{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def make(self, engine: str, block_size: int) -> Path:
        """What `load` opens for the engine: the model's own folder, or a program, which takes minutes to make.

        Raises BackendUnavailable without its packages, UsageError where the backend does not take the model.
        """
        chosen = ENGINES[engine]
        if chosen.backend is None:
            return self.source
        path = self.programs / (f"{engine}-{block_size}" + ("" if chosen.backend == IR else ".pte"))
        if not (is_openvino_folder(path) or path.with_name(path.name + SUFFIX).exists()):
            shape: dict[str, Any] = {"context": self.context, "block_size": block_size, "max_length": self.max_length}
            config = ExportConfig(backend=chosen.backend, quantization=chosen.quantization, **shape)
            export_bundle(self.model.float(), self.tokenizer, path, config)
        return path

    def tidy(self, kept: str | None) -> None:
        """Removes all programs but one, named relative to the folder."""
        for made in self.folder.glob("programs-*"):
            if kept is None or made.name != Path(kept).parts[0]:
                shutil.rmtree(made)
                continue
            for path in made.iterdir():
                program = path.is_dir() or ".pte" in path.suffixes
                if program and f"{made.name}/{path.name.removesuffix(SUFFIX)}" != kept:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
