"""What a harness says about a text to be generated, under the names that harnesses use."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.sampler import Sampler, choose_sampler
from diffulex_edge.runtime.text import before_stop

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # of several the first counts


@dataclass(frozen=True, kw_only=True)
class Generation:
    until: tuple[str, ...] = ()  # the text ends before the first of these
    max_new_tokens: int = 256
    sampler: Sampler = choose_sampler()

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """From generation settings, with lm-eval's meaning: do_sample decides, else a temperature above 0 does.

        Warns of what decoding by diffusion has not. Raises UsageError where a value is not one.
        """
        known = {*LENGTHS, "until", "do_sample", "temperature", "top_k", "top_p"}
        foreign = sorted(set(said) - known)
        if foreign:
            warnings.warn(f"generation settings without a meaning here: {', '.join(foreign)}", stacklevel=2)
        until = said.get("until") or ()
        length = next((int(said[name]) for name in LENGTHS if said.get(name) is not None), cls.max_new_tokens)
        if length < 1:
            raise UsageError(f"max_gen_toks={length} must be at least 1")
        temperature = float(said.get("temperature") or 0.0)
        drawn = temperature if said.get("do_sample") in (None, True) else 0.0
        return cls(
            until=tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop),
            max_new_tokens=length,
            sampler=choose_sampler(drawn, int(said.get("top_k") or 0), float(said.get("top_p") or 1.0)),
        )

    def cut(self, text: str) -> str:
        """The text up to the earliest stop."""
        return before_stop(text, self.until)

    def ended(self, text: str) -> bool:
        return any(stop in text for stop in self.until)
