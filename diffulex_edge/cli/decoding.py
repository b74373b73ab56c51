"""How tokens are chosen, in flags; and the plan that they mean. Switches end here: below, all is objects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from diffulex_edge.cli.flags import Profile
from diffulex_edge.cli.reveal_flags import RevealFlags
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser, DenoiserSpec
from diffulex_edge.runtime.depth import LinearDepth
from diffulex_edge.runtime.guidance import Guided
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.sampler import choose_sampler


@dataclass(frozen=True, kw_only=True)
class DecodingFlags:
    """How tokens are chosen."""

    steps: int | None = None  # reverse steps a block, at most; None: the profile's, else the model's own
    min_decode_layers: int = LinearDepth.min_depth  # layers of the first, noisiest step; 0: all at each step
    confidence_stop: float | None = None  # short for --reveal threshold --threshold X: say 0.95
    showing: RevealFlags = RevealFlags()
    temperature: float = 0.0  # 0: the likeliest token, whatever top_k and top_p say
    top_k: int = 0  # draw from so many likeliest tokens; 0: from all
    top_p: float = 1.0  # draw from the likeliest tokens that together have this probability
    seed: int = Plan.seed  # the same seed gives the same text
    cfg_scale: float = 0.0  # follow the prompt more closely, at twice the cost a step: LLaDA's guidance; 0: off

    def guide(self, denoiser: Denoiser) -> Denoiser:
        return Guided(denoiser, self.cfg_scale) if self.cfg_scale else denoiser

    def plan(self, spec: DenoiserSpec, profile: Profile | None, **more: Any) -> Plan:
        """The plan; `more` are fields of it that the verb decides, None for the profile's or else the model's own."""
        wishes = {"steps": self.steps, **more}
        if profile:
            wishes = {name: getattr(profile, name, None) if value is None else value for name, value in wishes.items()}
        sampler = choose_sampler(self.temperature, self.top_k, self.top_p)
        reveal, quota = self._shown().choose(sampler)
        return plan_for(
            spec,
            sampler=sampler,
            reveal=reveal,
            quota=quota,
            depth=LinearDepth(self.min_decode_layers),
            seed=self.seed,
            **wishes,
        )

    def _shown(self) -> RevealFlags:
        if self.confidence_stop is None:
            return self.showing
        if self.showing.reveal not in (RevealFlags.reveal, "threshold") or self.showing.threshold is not None:
            raise UsageError("--confidence_stop is a rule and its threshold: give it, or --reveal, not both")
        return replace(self.showing, reveal="threshold", threshold=self.confidence_stop)


@dataclass(frozen=True, kw_only=True)
class BlockFlags:
    """How much text, and in what blocks."""

    max_new_tokens: int = Plan.max_new_tokens  # tokens to add, at most
    stop: tuple[str, ...] = ()  # the text ends before the first of these strings
    blockwise: bool = False  # block by block, each seeing all of the text before it
    frozen_context: bool = False  # blocks see a small memory of the text before them instead: constant cost
    block_size: int | None = None  # tokens of a block; None: the profile's, or the plan's own

    @property
    def mode(self) -> str:
        return "block_frozen" if self.frozen_context else "block" if self.blockwise else "full"

    def plan(self, decoding: DecodingFlags, spec: DenoiserSpec, profile: Profile | None) -> Plan:
        """The plan before it is put into its mode."""
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens={self.max_new_tokens} must be at least 1")
        if self.block_size is not None and self.block_size > max(self.max_new_tokens, Plan.block_size):
            raise UsageError(f"block_size={self.block_size} is more than max_new_tokens={self.max_new_tokens}")
        return decoding.plan(spec, profile, block_size=self.block_size, max_new_tokens=self.max_new_tokens)
