"""What a user may hand in as a prompt. The library takes any text; the command line refuses what cannot be meant."""

from __future__ import annotations

import os
import sys

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.text.normalize import normalize
from diffulex_edge.text.script import foreign_ids, script_of
from diffulex_edge.text.tokenizer import Tokenizer

MAX_CHARS = 65_536
CONTROL = ("[MASK]", "</s>")  # how other toolkits write ids that no text can name here


def read_prompt(text: str) -> str:
    """The text, or standard input for `-`. Raises UsageError for a text that is empty, too long, or not UTF-8."""
    if text == "-":
        try:
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not valid UTF-8: byte {error.start}: {error.reason}") from None
    else:
        text = _as_utf8(text)
    return checked(text)


def checked(text: str) -> str:
    """The text; UsageError where it is empty, too long, not UTF-8, or spells what cannot be meant."""
    for position, char in enumerate(text[: MAX_CHARS + 1]):
        if "\ud800" <= char <= "\udfff":
            raise UsageError(f"the text is not valid UTF-8 at character {position}")
    if not normalize(text[: MAX_CHARS + 1]).strip():
        raise UsageError("the text is empty: there is nothing to go on from")
    if len(text) > MAX_CHARS:
        raise UsageError(f"the text has {len(text):,} characters; at most {MAX_CHARS:,} are taken")
    for word in CONTROL:
        if word in text:
            raise UsageError(
                f"the text holds the literal {word}, which names no control id here; gaps are ___ in `infill`"
            )
    return text


def in_script_of(text: str, plan: Plan, denoiser: Denoiser, tokenizer: Tokenizer, wished: bool | None) -> Plan:
    """The plan that writes no letter of another script than the text's; of a text in both, or none, as it was.

    wished: whether to keep to the script at all; None: as the model does.
    """
    keep = denoiser.spec.sampling.override(keep_script=wished).keep_script
    return plan.ban(foreign_ids(tokenizer, script_of(text))) if keep else plan


def _as_utf8(word: str) -> str:
    """A word of the command line as its bytes say it in UTF-8, whatever the locale took them for."""
    try:
        return os.fsencode(word).decode("utf-8")
    except UnicodeError:
        return word
