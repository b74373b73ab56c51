"""How tokens are chosen, in flags; and the plan that they mean. Switches end here: below, all is objects."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from diffulex_edge.cli.flags import Profile
from diffulex_edge.cli.reveal_flags import RevealFlags
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.depth import LinearDepth
from diffulex_edge.runtime.exit_file import open_exits
from diffulex_edge.runtime.guidance import Guided
from diffulex_edge.runtime.official import official_plan
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.sampler import sampler_of
from diffulex_edge.runtime.suffix import choose_suffix


@dataclass(frozen=True, kw_only=True)
class DecodingFlags:
    """How tokens are chosen."""

    official: bool = False  # the rule, the block and the steps of the model's makers, whatever the profile says
    steps: int | None = None  # reverse steps a block, at most; None: the profile's, else the model's own
    min_decode_layers: int = LinearDepth.min_depth  # layers of the first, noisiest step; 0: all at each step
    sedac: Path | None = None  # exit early as this folder of `sedac calibrate` allows; of the same weights
    confidence_stop: float | None = None  # short for --reveal threshold --threshold X: say 0.95
    showing: RevealFlags = RevealFlags()
    suffix_window: int | None = None  # tokens ahead of a block that a canvas reads, and few further on; None: all
    temperature: float | None = 0.0  # 0: the likeliest token, whatever top_k and top_p say; None: the model's own
    top_k: int | None = 0  # draw from so many likeliest tokens; 0: from all; None: the model's own
    top_p: float | None = 1.0  # draw from the likeliest tokens of this probability together; None: the model's own
    seed: int = Plan.seed  # the same seed gives the same text
    cfg_scale: float = 0.0  # follow the prompt more closely, at twice the cost a step: LLaDA's guidance; 0: off

    def guide(self, denoiser: Denoiser) -> Denoiser:
        return Guided(denoiser, self.cfg_scale) if self.cfg_scale else denoiser

    def plan(self, denoiser: Denoiser, profile: Profile | None, **more: Any) -> Plan:
        """The plan; `more` are fields of it that the verb decides, None for the profile's or else the model's own."""
        if self.official:
            return self._official(denoiser, **more)
        wishes = {"steps": self.steps, **more}
        if profile:
            wishes = {name: getattr(profile, name, None) if value is None else value for name, value in wishes.items()}
        sampler = sampler_of(denoiser.spec.sampling.override(**vars(self)))
        reveal, quota = self._shown().choose(sampler)
        return plan_for(
            denoiser.spec,
            sampler=sampler,
            reveal=reveal,
            quota=quota,
            depth=LinearDepth(self.min_decode_layers),
            exit=self.sedac and open_exits(self.sedac, denoiser),
            suffix=choose_suffix(self.suffix_window),
            seed=self.seed,
            **wishes,
        )

    def _official(self, denoiser: Denoiser, **more: Any) -> Plan:
        free = ("official", "suffix_window", "temperature", "top_k", "top_p", "seed", "cfg_scale")
        chosen = [f.name for f in fields(self) if f.name not in free and getattr(self, f.name) != f.default]
        chosen += [name for name in ("block_size", "context") if more.get(name) is not None]
        if chosen:
            names = ", ".join("--" + name.replace("showing", "reveal") for name in chosen)
            raise UsageError(f"--official decides what {names} would: give one of the two")
        sampler = sampler_of(denoiser.spec.sampling.override(**vars(self)))
        suffix = choose_suffix(self.suffix_window)
        return official_plan(denoiser, sampler=sampler, suffix=suffix, seed=self.seed, **more)

    def _shown(self) -> RevealFlags:
        if self.confidence_stop is None:
            return self.showing
        if self.showing.reveal not in (RevealFlags.reveal, "threshold") or self.showing.threshold is not None:
            raise UsageError("--confidence_stop is a rule and its threshold: give it, or --reveal, not both")
        return replace(self.showing, reveal="threshold", threshold=self.confidence_stop)
