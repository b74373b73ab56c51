"""What `tune` chose, put in the place of flags that say nothing of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from diffulex_edge.api import source_of, tuned_folder
from diffulex_edge.cli.blocks import BlockFlags
from diffulex_edge.cli.decoding import DecodingFlags
from diffulex_edge.cli.flags import ModelFlags, Profile
from diffulex_edge.text.tokenizer import load_tokenizer
from diffulex_edge.tuning.choice import Choice, Task, weights_of

DECIDING = ("pte", "threads", "precision", "compile", "edge_profile")  # flags that leave no choice


@dataclass(frozen=True, kw_only=True)
class Tuned(ModelFlags):
    """Flags with the choice in them."""

    chosen: Choice

    @property
    def profile(self) -> Profile:
        chosen = self.chosen
        return Profile(
            threads=chosen.threads, precision=chosen.precision, block_size=chosen.block_size, steps=chosen.steps
        )


def tuned(flags: ModelFlags, task: Task) -> ModelFlags:
    """The flags as `tune` chose for this model and machine, where it chose and can do the task; said on standard error.

    Raises ArtefactError where the choice was changed by anybody else.
    """
    given = {field.name: getattr(flags, field.name) for field in fields(ModelFlags)}
    if any(given[name] for name in DECIDING):
        return flags
    folder = tuned_folder(flags.ckpt)
    choice = Choice.read(folder)
    if choice is None:
        return flags
    obstacle = choice.staleness(weights_of(source_of(flags.ckpt))) or choice.obstacle(task)
    if obstacle:
        print(f"what was tuned is left out: {obstacle}", file=sys.stderr)
        return flags
    print(f"tuned: {choice.told()}; --untuned leaves it out", file=sys.stderr)
    program = {"pte": folder / choice.program} if choice.program is not None else {}
    return Tuned(**{**given, **program}, chosen=choice)


def tuned_for_text(flags: ModelFlags, blocks: BlockFlags, decoding: DecodingFlags, prompt: str) -> ModelFlags:
    """`tuned`, for a continuation of the prompt."""
    modes = ("block_frozen",) if blocks.frozen_context else ("block",) if blocks.blockwise else ()
    tokens = longest(flags, (prompt,), blocks.max_new_tokens)
    return tuned(flags, Task(modes=modes, block_size=blocks.block_size, longest=tokens, beyond=beyond(decoding)))


def longest(flags: ModelFlags, prompts: Sequence[str], new_tokens: int) -> Callable[[], int]:
    """How many tokens the longest of the texts will have, once somebody asks."""

    def count() -> int:
        words = load_tokenizer(flags.tokenizer or source_of(flags.ckpt))
        return max(len(words.encode(prompt)) for prompt in prompts) + new_tokens

    return count


def beyond(decoding: DecodingFlags) -> str:
    """What the flags ask for that only a model itself does; empty: nothing."""
    asked = {
        "--official": decoding.official,
        "early exit (--sedac)": decoding.sedac,
        "depth that grows (--min_decode_layers)": decoding.min_decode_layers,
        "gaps in the text ahead (--suffix_window)": decoding.suffix_window,
        "guidance (--cfg_scale)": decoding.cfg_scale,
    }
    return next((name for name, value in asked.items() if value), "")
