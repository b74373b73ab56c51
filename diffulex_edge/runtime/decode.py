"""How a diffusion language model decodes: one loop for every model, context and plan.

The text before a block is remembered by a context. A block starts hidden; at each reverse step the denoiser looks at it
and guesses every hidden token, the sampler picks, and the reveal shows some. When all are shown the context takes the
block in, and the next one begins. Text that the user gave may stand before, between and behind what is hidden, so
infilling is the same loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import NONE, Denoiser, DenoiserSpec
from diffulex_edge.runtime.canvas import Prompts, check_memory, lay_out
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.sampler import Guess
from diffulex_edge.runtime.step import Step
from diffulex_edge.runtime.turn import turn_for


@dataclass(frozen=True, eq=False)
class Draft:
    """A block after a reverse step; what is still hidden holds the mask id, and so does padding behind a row's end."""

    start: int  # column of the block in the canvas
    block: Tensor  # (B, L)
    asked: Tensor  # (B, L) bool: what is being filled; the rest is given, or padding
    step: Step
    guess: Guess


@dataclass(frozen=True, eq=False)
class Committed:
    """A finished block. `block[row][asked[row]]` of all these, one after the other, is that row's `Finished.tokens`."""

    start: int
    block: Tensor  # (B, L)
    asked: Tensor  # (B, L) bool: what was filled and is kept; nothing behind a stop id is


@dataclass(frozen=True)
class Finished:
    """The end of the stream."""

    tokens: list[list[int]]  # per row what was filled, up to and with its stop id
    texts: list[list[int]]  # per row the same together with what was given
    forwards: int  # reverse steps: calls that looked (NFE)
    commits: int  # prefill and commit: calls that remembered; a context of ids makes them for nothing


Event = Draft | Committed | Finished
Until = Callable[[Committed], Tensor]  # which rows (B,) are to end behind this block, before it is yielded


@torch.inference_mode()
def decode(
    denoiser: Denoiser,
    prompts: Prompts,
    plan: Plan | None = None,
    *,
    until: Until | None = None,
    device: torch.device | str | None = None,
) -> Iterator[Event]:
    """Continues each prompt by `plan.max_new_tokens` tokens; a prompt that holds mask ids is filled there instead.

    prompts: ids (B, S), or one list a row, of any lengths. Greedily and at full depth each is continued as alone; at
        progressive depth, which a batch shares, no row runs shallower than alone (`Plan.reverse_steps`).
    plan: None is as the model was trained, `plan_for`.
    until: told of each finished block, says which rows want no more; a row that has ended takes no further step, and
        when all have there is no further forward. For ends that ids cannot tell, such as stop strings.
    device: where the model is; by default where the prompts are.
    Yields a Draft after each reverse step, a Committed after each block, and one Finished. No mask id is ever among the
    tokens, and a block takes at most `plan.steps` forwards, and one more where a reveal leaves something hidden.
    """
    spec = denoiser.spec
    plan = plan or plan_for(spec)
    device = _device(prompts) if device is None else torch.device(device)
    aligned = denoiser.begin(plan.context, 1, plan.block_size).aligned  # the layout hangs on it, and the length on that
    _check(plan, spec, aligned)
    check_memory(prompts, plan, spec)
    canvas = lay_out(prompts, plan, spec, aligned=aligned, device=device)
    rows, width = canvas.ids.shape
    context = denoiser.begin(plan.context, rows, width, canvas.first if canvas.first.any() else None)
    generator = torch.Generator(device).manual_seed(plan.seed)
    banned = torch.tensor(sorted({spec.mask_id, *plan.banned}), device=device)
    turn = turn_for(denoiser, plan, banned, generator)
    forwards, commits, start = 0, 0, canvas.start
    unread = prefill(canvas.ids[:, :start], plan.block_size, spec, aligned)  # what the context has yet to take in
    while canvas.asked[:, start:].any():
        for clean in unread:
            _, context = denoiser(clean, context, rows=NONE)
            commits += 1
        stop = min(start + plan.block_size, canvas.ids.shape[1])
        ahead = canvas.ids[:, stop:]
        read = plan.suffix(ahead != spec.mask_id, plan.seed)
        context = context.facing(ahead[:, read], read)
        block, asked, state = context.open(canvas.ids[:, start:stop], plan.banned), canvas.asked[:, start:stop], None
        for step in plan.reverse_steps((asked & (block == spec.mask_id)).sum(1), spec):
            if not (asked & (block == spec.mask_id)).any():
                break
            done = turn(block, asked, context, step, state)
            forwards += 1
            block, state, context = done.block, done.state, context.refresh(done.seen, step)
            yield Draft(start, block, asked, step, done.guess)
        canvas = canvas.put(start, block, plan.stop_ids)
        committed = Committed(start, block, canvas.asked[:, start:stop])
        if until is not None:
            canvas = canvas.ending(torch.where(until(committed), stop, canvas.end))
        yield committed
        start, unread = stop, (block,)
    yield Finished(canvas.filled(), canvas.texts(), forwards, commits)


def finish(events: Iterator[Event]) -> Finished:
    """The end of a stream. No draft is kept on the way: the logits of all steps together take gigabytes."""
    (last,) = deque(events, maxlen=1)
    assert isinstance(last, Finished)
    return last


def prefill(prefix: Tensor, block_size: int, spec: DenoiserSpec, aligned: bool) -> tuple[Tensor, ...]:
    """The text (B, S) before the first block in pieces that one call takes.

    Block-causal attention and a context of ids take all at once; a memory is updated block by block.
    """
    if not prefix.shape[1]:
        return ()
    return prefix.split(block_size, 1) if aligned and spec.block_length is None else (prefix,)


def _device(prompts: Prompts) -> torch.device:
    return prompts.device if isinstance(prompts, Tensor) else torch.device("cpu")


def _check(plan: Plan, spec: DenoiserSpec, aligned: bool) -> None:
    wrong = [token for token in (*plan.stop_ids, *plan.banned) if token >= spec.vocab_size]
    if wrong:
        raise UsageError(f"the plan names the id {wrong[0]}; the model's vocabulary has {spec.vocab_size} ids")
    if spec.autoregressive and plan.block_size > 1:
        raise UsageError(f"block_size={plan.block_size}: an autoregressive model writes one token at a time")
    if aligned and spec.block_length is not None and plan.block_size % spec.block_length:
        raise UsageError(
            f"block_size={plan.block_size} is not a multiple of {spec.block_length}, the block length of the model"
        )
