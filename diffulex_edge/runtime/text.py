"""Text in, text out: continuing a prompt and filling gaps, over the one loop of decode.py. Takes any tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, overload

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser, DenoiserSpec
from diffulex_edge.runtime.decode import Committed, decode, finish
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.score import masked_pll

LONGEST_TRIED = 8  # tokens of a gap whose length is not said
MOST_TRIED = 32  # gaps whose length is not said: the work grows with their square


class Words(Protocol):
    """What is needed of a tokenizer here."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def mask_id(self) -> int: ...

    @property
    def eos_id(self) -> int: ...

    @property
    def pad_id(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@overload
def generate(
    denoiser: Denoiser,
    tokenizer: Words,
    prompt: str,
    plan: Plan | None = ...,
    *,
    stop: tuple[str, ...] = ...,
    device: torch.device | str = ...,
) -> str: ...


@overload
def generate(
    denoiser: Denoiser,
    tokenizer: Words,
    prompt: list[str],
    plan: Plan | None = ...,
    *,
    stop: tuple[str, ...] = ...,
    device: torch.device | str = ...,
) -> list[str]: ...


def generate(
    denoiser: Denoiser,
    tokenizer: Words,
    prompt: str | list[str],
    plan: Plan | None = None,
    *,
    stop: tuple[str, ...] = (),
    device: torch.device | str = "cpu",
) -> str | list[str]:
    """Continues a prompt, or each of several at once; gives what follows, so that prompt + continuation is the text.

    Ends at the tokenizer's end of text, unless the plan names stop ids of its own.
    plan: None is as the model was trained, `plan_for`.
    stop: strings, too, before the first of which a continuation ends; its row takes no part in the blocks that follow.
    device: where the model is.
    Raises UsageError where the tokenizer is not the model's.
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    given = [prompt_ids(tokenizer, text) for text in prompts]
    rows = StopStrings(tokenizer, prompts, stop)
    for _ in decode(denoiser, given, text_plan(denoiser, tokenizer, plan), until=rows, device=device):
        pass
    found = [rows.text(row) for row in range(len(prompts))]
    return found[0] if isinstance(prompt, str) else found


class StopStrings:
    """Follows a decode as its `until`: ends rows behind the block in which a stop string is complete.

    A string is looked for in text and not in ids, since tokens cut the same text in many ways.
    """

    def __init__(self, tokenizer: Words, prompts: Sequence[str], stop: Sequence[str]) -> None:
        self._tokenizer, self._prompts, self._stop = tokenizer, prompts, check_stop(stop)
        self._given = [prompt_ids(tokenizer, text) for text in prompts]
        self._new: list[list[int]] = [[] for _ in prompts]

    def __call__(self, event: Committed) -> Tensor:
        for new, block, asked in zip(self._new, event.block, event.asked, strict=True):
            new += block[asked].tolist()
        ended = [any(stop in self._whole(row) for stop in self._stop) for row in range(len(self._new))]
        return torch.tensor(ended, device=event.block.device)

    def text(self, row: int) -> str:
        """What the row has added to its prompt, up to the first stop string."""
        return before_stop(self._whole(row), self._stop)

    def _whole(self, row: int) -> str:
        prompt, new = self._prompts[row], self._new[row]
        return _joined(prompt, _continuation(self._tokenizer, self._given[row], new), "")[len(prompt) :]


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the first of the strings in it."""
    return text[: min((at for word in stop if (at := text.find(word)) >= 0), default=len(text))]


def check_stop(stop: Sequence[str]) -> Sequence[str]:
    """The stop strings. Raises UsageError for one string instead of several, and for an empty one."""
    if "" in stop:  # which is so of every string, too
        raise UsageError(f"{stop=} must be a tuple of strings of at least one character each")
    return stop


def infill(
    denoiser: Denoiser,
    tokenizer: Words,
    text: str,
    plan: Plan | None = None,
    *,
    blank: str = "___",
    lengths: int | tuple[int, ...] | None = None,
    device: torch.device | str = "cpu",
) -> str:
    """Fills each blank of the text from what stands on both sides of it; all else stays as it was, to the character.

    lengths: tokens of every blank, or of each; None tries 1 to 8 and keeps the best masked PLL a token, one blank after
        the other while the rest have what was best so far (two, at first). device: where the model is.
    Raises UsageError for a text without a blank, or lengths that do not fit the blanks.
    """
    if not blank:
        raise UsageError("the blank is empty: say what a gap is written as")
    parts = text.split(blank)
    n_gaps = len(parts) - 1
    if not n_gaps:
        raise UsageError(f"the text has no {blank!r} to fill")
    if lengths is None and n_gaps > MOST_TRIED:
        raise UsageError(f"{n_gaps:,} blanks of unknown length: at most {MOST_TRIED} are tried; say how long they are")
    wanted = (lengths,) * n_gaps if isinstance(lengths, int) else lengths
    if wanted is not None and (len(wanted) != n_gaps or min(wanted) < 1):
        raise UsageError(f"{lengths=} for {n_gaps} blanks: each needs a length of at least 1 token")
    given = [*(prompt_ids(tokenizer, part) for part in parts[:-1]), tokenizer.encode(parts[-1])]
    plan = _gap_plan(denoiser, tokenizer, plan)
    if wanted is None:
        fills = _search(denoiser, given, plan, device)
    else:
        fills = _cut(_fill(denoiser, given, [wanted], plan, device)[0], given, wanted)
    left, ids = parts[0], list(given[0])
    for fill, part, after in zip(fills, parts[1:], given[1:], strict=True):
        left = _joined(left, _continuation(tokenizer, ids, fill), part)
        ids += fill + after
    return left


def text_plan(denoiser: Denoiser, tokenizer: Words, plan: Plan | None) -> Plan:
    """The plan, or that of the model, with the ends of the model or the tokenizer; ids without words are banned."""
    plan = plan or plan_for(denoiser.spec)
    if tokenizer.mask_id != denoiser.spec.mask_id:
        raise UsageError(
            f"the tokenizer's mask is id {tokenizer.mask_id}, the model's is {denoiser.spec.mask_id}:"
            " they do not belong together"
        )
    stop_ids = plan.stop_ids or ends_of(denoiser.spec, tokenizer)
    return replace(plan, stop_ids=stop_ids).ban(wordless(denoiser.spec, tokenizer, stop_ids))


def ends_of(spec: DenoiserSpec, tokenizer: Words) -> tuple[int, ...]:
    """The ids that end a text: the model's own, or the tokenizer's where it names none."""
    return spec.stop_ids or (tokenizer.eos_id,)


def wordless(spec: DenoiserSpec, tokenizer: Words, stop_ids: Sequence[int] = ()) -> tuple[int, ...]:
    """Ids that no text is made of: padding, where it ends no text, and logits wider than the vocabulary."""
    ends = stop_ids or ends_of(spec, tokenizer)
    padding = () if tokenizer.pad_id in ends else (tokenizer.pad_id,)  # some families pad with the end of text
    return (*padding, *range(tokenizer.vocab_size, spec.vocab_size))


def prompt_ids(tokenizer: Words, text: str) -> list[int]:
    """The ids of a text to go on from. A space at its end belongs to the token that follows, as in running text."""
    return tokenizer.encode(text.rstrip(" "))


def _gap_plan(denoiser: Denoiser, tokenizer: Words, plan: Plan | None) -> Plan:
    """The plan with both sides in view; a gap has text behind it, so no end, and it stays in its line."""
    plan = text_plan(denoiser, tokenizer, plan)
    kind = next((kind for kind in ("canvas", "kv", "full") if kind in denoiser.spec.contexts), plan.context)
    line_break = tokenizer.encode("\n")
    ends = (tokenizer.eos_id, *(line_break if len(line_break) == 1 else ()))
    return replace(plan, context=kind, stop_ids=()).ban(ends)


def _search(denoiser: Denoiser, given: list[list[int]], plan: Plan, device: torch.device | str) -> list[list[int]]:
    """Settles the lengths from left to right, each by trying all of them; 8 candidates a gap, decoded as one batch."""
    n_gaps = len(given) - 1
    best, row = (2,) * n_gaps, list[int]()
    for gap in range(n_gaps):
        tried = [(*best[:gap], length, *best[gap + 1 :]) for length in range(1, LONGEST_TRIED + 1)]
        rows = _fill(denoiser, given, tried, plan, device)
        scores = [
            masked_pll(denoiser, row, _positions(given, lengths), device=device)
            for row, lengths in zip(rows, tried, strict=True)
        ]
        winner = max(range(len(tried)), key=scores.__getitem__)  # of equals the shortest
        best, row = tried[winner], rows[winner]
    return _cut(row, given, best)


def _fill(
    denoiser: Denoiser,
    given: list[list[int]],
    candidates: list[tuple[int, ...]],
    plan: Plan,
    device: torch.device | str,
) -> list[list[int]]:
    """The whole text in ids for each candidate's gap lengths.

    Decoded in one block that reaches to its end; where attention is block-causal, in the model's blocks, which see
    nothing behind them.
    """
    mask = denoiser.spec.mask_id
    rows = []
    for lengths in candidates:
        row = list(given[0])
        for length, after in zip(lengths, given[1:], strict=True):
            row += [mask] * length + after
        rows.append(row)
    size = denoiser.spec.block_length or max(map(len, rows))
    finished = finish(decode(denoiser, rows, replace(plan, block_size=size), device=device))
    return finished.texts


def _positions(given: list[list[int]], lengths: tuple[int, ...]) -> list[int]:
    """Where in the whole text the gaps' tokens are."""
    found, at = list[int](), 0
    for before, length in zip(given, lengths, strict=False):
        at += len(before)
        found += range(at, at + length)
        at += length
    return found


def _cut(row: list[int], given: list[list[int]], lengths: tuple[int, ...]) -> list[list[int]]:
    """The gaps' tokens out of the whole text, gap by gap."""
    tokens = iter([row[i] for i in _positions(given, lengths)])
    return [[next(tokens) for _ in range(length)] for length in lengths]


def _continuation(tokenizer: Words, before: list[int], ids: list[int]) -> str:
    """What the ids add to the text before them: a tokenizer may drop a leading space where nothing stands before it."""
    lead, whole = tokenizer.decode(before), tokenizer.decode(before + ids)
    return whole[len(lead) :] if whole.startswith(lead) else tokenizer.decode(ids)


def _joined(left: str, fill: str, right: str) -> str:
    """One text; where it had a space beside the gap, or ends, the fill's own is dropped."""
    if not left or left[-1].isspace():
        fill = fill.lstrip()
    if right[:1].isspace():
        fill = fill.rstrip()
    return left + fill + right
