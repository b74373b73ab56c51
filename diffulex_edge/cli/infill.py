"""`infill`: a text with gaps goes in, the same text with the gaps filled comes out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import tyro

from diffulex_edge.cli.decoding import DecodingFlags
from diffulex_edge.cli.flags import ModelFlags
from diffulex_edge.cli.parse import console
from diffulex_edge.cli.prompt import in_script_of, read_prompt
from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.text import infill


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Fills the gaps of a text; everything else stays as it was, to the letter."""

    text: tyro.conf.Positional[str]  # the text, with ___ for each gap; - reads standard input
    model: ModelFlags = ModelFlags()
    decoding: DecodingFlags = DecodingFlags()
    blank: str = "___"  # what a gap is written as
    keep_script: bool | None = None  # True: in the script of the text alone, or in both of its; None: the model's own
    length: int | None = None  # tokens of each gap; None: try 1 to 8 and keep what the model finds likeliest
    lengths: tuple[int, ...] = ()  # tokens of each gap, one number a gap

    @property
    def json(self) -> str | None:
        return self.model.json


def run(flags: Flags) -> dict[str, Any]:
    text = read_prompt(flags.text)
    if flags.lengths and flags.length is not None:
        raise UsageError("--length is for all gaps, --lengths has a number for each: give one of the two")
    denoiser, tokenizer = flags.model.open()
    if "canvas" not in denoiser.spec.contexts:
        print(f"warning: {flags.model.ckpt} does not see what follows a gap; expect worse fits", file=sys.stderr)
    plan = flags.decoding.plan(denoiser, flags.model.profile)
    plan = in_script_of(text, plan, denoiser, tokenizer, flags.keep_script)
    denoiser = flags.decoding.guide(denoiser)
    filled = infill(denoiser, tokenizer, text, plan, blank=flags.blank, lengths=flags.lengths or flags.length)
    console(flags.json).print(filled, markup=False)
    return {"text": text, "filled": filled}
