"""How much text, and in what blocks, in flags; and the plan that they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from diffulex_edge.bench.measure import BenchConfig
from diffulex_edge.bench.variants import fit
from diffulex_edge.cli.decoding import DecodingFlags
from diffulex_edge.cli.flags import Profile
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser, DenoiserSpec
from diffulex_edge.runtime.plan import Plan


@dataclass(frozen=True, kw_only=True)
class BlockFlags:
    """How much text, and in what blocks."""

    max_new_tokens: int = Plan.max_new_tokens  # tokens to add, at most
    stop: tuple[str, ...] = ()  # the text ends before the first of these strings
    blockwise: bool = False  # block by block, each seeing all of the text before it
    frozen_context: bool = False  # blocks see a small memory of the text before them instead: constant cost
    block_size: int | None = None  # tokens of a block; None: the profile's, or the plan's own

    def mode(self, spec: DenoiserSpec) -> str:
        """As the flags say; without any `full`, or what a program that has no such context was made for."""
        if self.frozen_context or self.blockwise:
            return "block_frozen" if self.frozen_context else "block"
        kind = next(iter(spec.contexts), "full")
        return "full" if "full" in spec.contexts or kind == "full" else "block_frozen" if kind == "memory" else kind

    def plan(self, decoding: DecodingFlags, denoiser: Denoiser, profile: Profile | None, **more: Any) -> Plan:
        """The plan before it is put into its mode; `more` are fields of it, None for the model's own."""
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens={self.max_new_tokens} must be at least 1")
        if self.block_size is not None and self.block_size > max(self.max_new_tokens, Plan.block_size):
            raise UsageError(f"block_size={self.block_size} is more than max_new_tokens={self.max_new_tokens}")
        if decoding.official and (self.blockwise or self.frozen_context):
            raise UsageError("--official is the family's own mode: give it, or --blockwise and --frozen_context")
        wishes = {"block_size": self.block_size, "max_new_tokens": self.max_new_tokens, **more}
        return decoding.plan(denoiser, profile, **wishes)

    def fitted(self, base: Plan, decoding: DecodingFlags, spec: DenoiserSpec) -> Plan:
        """The plan in its mode; `full` gets as many steps a token as the others where no flag says how many."""
        if decoding.official:
            return base
        return fit(self.mode(spec), base, spec, equal_tokens_per_step=decoding.steps is None, unit=base.block_size)

    def measured(self, config: BenchConfig, base: Plan, decoding: DecodingFlags, spec: DenoiserSpec) -> BenchConfig:
        """What `bench` is told to measure the same mode; it knows no rules but its own."""
        if decoding.official:
            raise UsageError("--benchmark_runs measures the mode that flags name: not --official")
        return replace(
            config,
            modes=(self.mode(spec),),
            max_new_tokens=base.max_new_tokens,
            steps=base.steps,
            block_size=base.block_size,
            suffix_window=decoding.suffix_window,
            equal_tokens_per_step=decoding.steps is None,
            min_decode_layers=decoding.min_decode_layers,
            seed=decoding.seed,
        )
