"""Flags that several verbs share: which model, and on what it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffulex_edge.api import SHIPPED, load
from diffulex_edge.errors import UsageError
from diffulex_edge.machine import number_type, set_threads
from diffulex_edge.model.base import Denoiser
from diffulex_edge.model.compiled import compiled
from diffulex_edge.model.families import FAMILIES, family
from diffulex_edge.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What decoding does on a kind of machine where no flag says otherwise."""

    threads: int | None  # None: one a core or one alone, as is faster now
    precision: str
    block_size: int  # tokens
    steps: int  # reverse steps a block


PROFILES = {
    "phone": Profile(threads=2, precision="auto", block_size=32, steps=6),
    "pi": Profile(threads=4, precision="fp32", block_size=32, steps=8),
    "laptop": Profile(threads=None, precision="auto", block_size=32, steps=12),
    "max": Profile(threads=None, precision="auto", block_size=32, steps=32),
}


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Which model, and on what it runs."""

    ckpt: str = SHIPPED  # a run or checkpoint folder, the shipped model's name, or OWNER/NAME of a pulled one
    pte: Path | None = None  # run this program, a .pte or a folder that `export` wrote, in place of --ckpt
    tokenizer: Path | None = None  # a tokenizer to use instead of the one beside the weights; of the same vocabulary
    model: Literal["primary", "backup"] | None = None  # refuse a checkpoint that is not of this kind
    edge_profile: Literal["phone", "pi", "laptop", "max"] | None = None  # threads, number type, block and steps at once
    threads: int | None = None  # None: the profile's, else one a core or one alone, as is faster now
    precision: Literal["auto", "fp32", "bf16"] | None = None  # None: the profile's, else the weights'; auto measures
    compile: bool = False  # compile the step at its first use, which takes minutes
    json: str | None = None  # write the result as JSON to this path; - for standard output

    @property
    def profile(self) -> Profile | None:
        return PROFILES[self.edge_profile] if self.edge_profile else None

    def steps(self, wished: int | None) -> int | None:
        """Reverse steps a block: as wished, else the profile's; None: the model's own."""
        return self.profile.steps if wished is None and self.profile else wished

    def block(self, wished: int | None) -> int | None:
        """Tokens of a block: as wished, else the profile's; None: the model's own."""
        return self.profile.block_size if wished is None and self.profile else wished

    def open(self) -> tuple[Denoiser, Tokenizer]:
        """Loads the model and sets threads and number type."""
        set_threads(self.profile.threads if self.threads is None and self.profile else self.threads)
        if self.pte is not None and (self.precision or self.compile):
            raise UsageError(f"--pte {self.pte} is compiled already and has its number type: no --precision, --compile")
        denoiser, tokenizer = load(self.pte or self.ckpt, tokenizer=self.tokenizer)
        if self.model and type(denoiser).__name__ != FAMILIES[family(self.model)][1]:
            raise UsageError(f"--model {self.model}, but {self.ckpt} holds a {type(denoiser).__name__}")
        precision = self.precision or (self.profile.precision if self.profile and not self.pte else None)
        denoiser = denoiser.to(number_type(precision)) if precision else denoiser  # type: ignore[attr-defined]
        return (compiled(denoiser) if self.compile else denoiser), tokenizer
