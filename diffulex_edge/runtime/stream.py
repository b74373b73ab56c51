"""Text that is fit to be shown while decoding goes on: whole characters, and whole grapheme clusters, only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import regex
import torch

from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.decode import Committed, decode
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.text import Words, before_stop, check_stop, prompt_ids, text_plan

CLUSTER = regex.compile(r"\X")


class TextStream:
    """Ids in, text out. What has been given out never changes, and all of it together is the decoded whole.

    Held back: bytes that are no whole character yet (U+FFFD at the end), and the last cluster, which a vowel sign or a
    joiner that comes next would still change.
    """

    def __init__(self, tokenizer: Words, prompt: Sequence[int] = ()) -> None:
        self._tokenizer, self._ids = tokenizer, list(prompt)
        self._sent = tokenizer.decode(self._ids)

    def push(self, ids: Sequence[int]) -> str:
        """Takes more ids; gives the text that is settled by them."""
        self._ids += ids
        clusters = CLUSTER.findall(self._new().rstrip("\ufffd"))
        return self._send("".join(clusters[:-1]))

    def close(self) -> str:
        """The rest, be it whole or not."""
        return self._send(self._new())

    def _new(self) -> str:
        return self._tokenizer.decode(self._ids)[len(self._sent) :]

    def _send(self, text: str) -> str:
        self._sent += text
        return text


def stream(
    denoiser: Denoiser,
    tokenizer: Words,
    prompt: str,
    plan: Plan | None = None,
    *,
    stop: tuple[str, ...] = (),
    device: torch.device | str = "cpu",
) -> Iterator[str]:
    """The continuation of one prompt in pieces, one for each finished block, up to the first stop string."""
    return _until(_pieces(denoiser, tokenizer, prompt, plan, device), check_stop(stop))


def _until(pieces: Iterator[str], stop: Sequence[str]) -> Iterator[str]:
    """The pieces up to the first stop string; what may yet become one is held back."""
    kept = ""
    for piece in pieces:
        kept += piece
        settled = before_stop(kept, stop)
        if len(settled) < len(kept):
            yield settled
            return
        cut = len(kept) - max((n for word in stop for n in range(len(word)) if kept.endswith(word[:n])), default=0)
        yield kept[:cut]
        kept = kept[cut:]
    yield kept


def _pieces(
    denoiser: Denoiser, tokenizer: Words, prompt: str, plan: Plan | None, device: torch.device | str
) -> Iterator[str]:
    """The continuation in pieces, whatever is in it."""
    ids = prompt_ids(tokenizer, prompt)
    text = TextStream(tokenizer, ids)
    spaced = not prompt or prompt[-1].isspace()
    for event in decode(denoiser, [ids], text_plan(denoiser, tokenizer, plan), device=device):
        if isinstance(event, Committed):
            piece = text.push(event.block[event.asked].tolist())
            yield piece.lstrip() if spaced else piece
            spaced = spaced and not piece.strip()
    piece = text.close()
    yield piece.lstrip() if spaced else piece
