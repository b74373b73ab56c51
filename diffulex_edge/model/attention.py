"""Denoisers made of attention layers: which text they read in each context, and what attends to what.

The layers differ from family to family; how they meet the contexts does not, and stands here once. Attention looks
everywhere, or is block-causal on the grid of absolute positions, where a static cache is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Context, DenoiserSpec, Exit
from diffulex_edge.model.canvas_cache import CanvasCache, places_of
from diffulex_edge.model.context import FullContext, empty_full
from diffulex_edge.model.kv_cache import KVContext, Opening, empty_kv, visible
from diffulex_edge.model.layers import turns
from diffulex_edge.model.soft_exit import Keep, Within
from diffulex_edge.model.stack import Look, run


class Shift(Protocol):
    """Which hidden state speaks about a token; the families' own conventions end here."""

    behind: int  # how many tokens before a block must be read to get all of its logits
    opens: bool  # the pass that remembers a block decides the first token of the next

    def __call__(self, positions: Tensor) -> Tensor:
        """From the positions (L,) of tokens to those of the hidden states that speak about them."""
        ...


@dataclass(frozen=True)
class Unshifted:
    """State i speaks about token i: LLaDA, SDAR."""

    behind = 0
    opens = False

    def __call__(self, positions: Tensor) -> Tensor:
        return positions


@dataclass(frozen=True)
class Shifted:
    """State i - 1 speaks about token i, as in the autoregressive model it was made from: Dream, arXiv:2508.15487."""

    behind = 1
    opens = False

    def __call__(self, positions: Tensor) -> Tensor:
        return (positions - 1).clamp(min=0)


@dataclass(frozen=True)
class ShiftedInBlock:
    """State i - 1 of what is looked at speaks about token i: Fast-dLLM v2, arXiv:2509.26328.

    The first token has none: it is decided by the pass that remembers the block before.
    """

    behind = 0
    opens = True

    def __call__(self, positions: Tensor) -> Tensor:
        return torch.maximum(positions - 1, positions[:1])


@dataclass(frozen=True, kw_only=True)
class AttentionFacts:
    """What reading needs to know of the layers."""

    spec: DenoiserSpec
    n_kv_heads: int
    head_dim: int
    rope_theta: float = 10_000.0
    shift: Shift = Unshifted()


class Flow(NamedTuple):
    """What goes through the layers."""

    tokens: Tensor  # (B, L, D)
    turn: Tensor  # (2, L, E / 2) rotary, of the positions
    mask: Tensor | None  # (B or 1, 1, L, S + L); None: all attend to all
    keep: Keep | None = None  # what an early exit has left of the feed-forward


class AttentionDenoiser(nn.Module):
    """A Denoiser of attention layers. Contexts: `kv` where attention is block-causal, else `canvas` and its caches."""

    def __init__(self, facts: AttentionFacts, ends: Any, layers: list[nn.Module]) -> None:
        super().__init__()
        self.facts, self.spec = facts, facts.spec
        self.ends = ends
        self.layers = nn.ModuleList(layers)
        self.run_layers = run

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Context:
        if kind not in self.spec.contexts:
            raise UsageError(f"context {kind!r} is not one of {type(self).__name__}: {', '.join(self.spec.contexts)}")
        limit = self.spec.contexts[kind]
        if limit is not None and length > limit:
            raise UsageError(f"a text of {length} tokens is longer than the {limit} that {type(self).__name__} takes")
        return _STARTS[kind](self, batch_size, length, first)

    def forward(
        self,
        block: Tensor,
        context: Context | None = None,
        *,
        t: Tensor | None = None,
        depth: int | None = None,
        exit: Exit | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Context]:
        context = self.begin("full", len(block), 0) if context is None else context
        look, remembering = Look(t, depth, exit), rows is not None and not rows.numel()
        opening = getattr(context, "opening", None)
        if opening is not None and not opening.fills and not remembering and block.shape[1] == 1:
            return opening.answer(rows), context
        if isinstance(context, KVContext):
            return self._remember(block, context) if remembering else self._look(block, context, look, rows)
        if isinstance(context, CanvasCache):
            if remembering:
                return self.ends.no_logits(), context.append(block)
            return self._look_at_canvas(block, context, look, rows)
        if not isinstance(context, FullContext):
            raise UsageError(f"{type(context).__name__} is not a context of {type(self).__name__}")
        if remembering:
            return self.ends.no_logits(), self._append(block, context)
        ids, here = context.spread(block)
        spoken = partial(self._spoken, start=context.length, length=block.shape[1], origin=0, first=context.first)
        places = places_of(0, here.stop, ids, context.ahead_at)
        h = self._run(ids, 0, None, _judging(look, spoken), context.first, places)
        return self.ends.logits(spoken(h), rows), context

    def _append(self, block: Tensor, context: FullContext) -> FullContext:
        after = context.append(block)
        if not self.facts.shift.opens:
            return after
        h = self._run(after.prefix, 0, None, Look(), context.first)
        return after.opened(self._opening(h, after.length, context.first))

    def _remember(self, block: Tensor, context: KVContext) -> tuple[Tensor, KVContext]:
        clean = Look(torch.zeros(len(block), device=block.device))
        after = context.advance(block.shape[1])
        h = self._run(block, context.length, context, clean, context.first)
        opening = self._opening(h, after.length, context.first) if self.facts.shift.opens else None
        return self.ends.no_logits(), after.opened(opening)

    def _look(self, block: Tensor, context: KVContext, look: Look, rows: Tensor | None) -> tuple[Tensor, KVContext]:
        start = context.length
        spoken = partial(self._spoken, start=start, length=block.shape[1], origin=start, first=context.first)
        h = self._run(block, start, context, _judging(look, spoken), context.first)
        return self.ends.logits(spoken(h), rows), context

    def _look_at_canvas(
        self, block: Tensor, context: CanvasCache, look: Look, rows: Tensor | None
    ) -> tuple[Tensor, CanvasCache]:
        """The first look at a block reads all of the canvas, later ones the block against what that one left."""
        ids, start = context.reading(block, self.facts.shift.behind)
        if not context.warm:
            look = Look(look.t)  # what it leaves behind is of all layers
        spoken = partial(self._spoken, start=context.length, length=block.shape[1], origin=start, first=context.first)
        places = context.places(start, block.shape[1], ids)
        h = self._run(ids, start, context.at(start), _judging(look, spoken), context.first, places)
        return self.ends.logits(spoken(h), rows), context.warmed()

    def _run(
        self,
        ids: Tensor,
        start: int,
        cache: Any,
        look: Look,
        first: Tensor | None,
        places: Tensor | None = None,
    ) -> Tensor:
        """ids (B, L) from column `start` on through the layers, (B, L, D); places (L,) where these are not columns."""
        if cache is not None:
            cache.check_room(ids.shape[1])
        length, block = ids.shape[1], self.spec.block_length
        places = start + torch.arange(length, device=ids.device) if places is None else places
        turn = turns(places, self.facts.head_dim, self.facts.rope_theta)
        if cache is None:
            mask = visible(start, length, start + length, block, first, ids.device)
        else:
            mask = cache.mask(length, block)
        memory = [None if cache is None else cache.layer(i) for i in range(len(self.layers))]
        flow = Flow(self.ends.embed(ids, look.t), turn, mask)
        return self.run_layers(self.layers, flow, memory, look.depth, look.exit)[0].tokens

    def _spoken(self, h: Tensor, start: int, length: int, origin: int, first: Tensor | None) -> Tensor:
        """The states (B, L, D) that speak about the tokens from `start` on; h (B, S, D) begins at `origin`."""
        positions = start + torch.arange(length, device=h.device)
        spoken = self.facts.shift(positions)
        if first is None:
            return h[:, spoken - origin]
        spoken = torch.minimum(torch.maximum(spoken, first[:, None]), positions)  # the first token has none before it
        return h.take_along_dim((spoken - origin)[..., None], 1)

    def _opening(self, h: Tensor, length: int, first: Tensor | None) -> Opening:
        """What the last state (B, L, D) before the block at `length` says of the block's first token."""
        begun = torch.ones(len(h), dtype=torch.bool, device=h.device) if first is None else length > first
        return Opening(self.ends.logits(h[:, -1:], None)[:, 0], begun, self.spec.mask_id, not self.spec.autoregressive)


def _judging(look: Look, spoken: Callable[[Tensor], Tensor]) -> Look:
    """The look with an exit that is asked about the block alone."""
    return look if look.exit is None else look._replace(exit=Within(look.exit, spoken))


def contexts(block_length: int | None, limit: int | None = None) -> dict[str, int | None]:
    """The kinds that attention allows, best first, each with the longest text it takes (tokens; None: no limit)."""
    kinds = ("canvas", "dual", "prefix", "full") if block_length is None else ("kv", "full")
    return dict.fromkeys(kinds, limit)


def _ids(model: AttentionDenoiser, batch_size: int, length: int, first: Tensor | None) -> FullContext:
    return empty_full(batch_size, _weight(model).device, first=first, aligned=model.spec.block_length is not None)


def _canvas(model: AttentionDenoiser, batch_size: int, length: int, first: Tensor | None) -> FullContext:
    return empty_full(batch_size, _weight(model).device, first=first, canvas=True)


def _kv(model: AttentionDenoiser, batch_size: int, length: int, first: Tensor | None) -> KVContext:
    facts = model.facts
    return empty_kv(facts.spec.n_layers, batch_size, facts.n_kv_heads, length, facts.head_dim, _weight(model), first)


def _cached(dual: bool) -> Start:
    def start(model: AttentionDenoiser, batch_size: int, length: int, first: Tensor | None) -> CanvasCache:
        ids = torch.zeros(batch_size, 0, dtype=torch.long, device=_weight(model).device)
        return CanvasCache(_kv(model, batch_size, length, first), ids, dual=dual)

    return start


def _weight(model: AttentionDenoiser) -> Tensor:
    return next(model.parameters())


Start = Callable[[AttentionDenoiser, int, int, Tensor | None], Context]
_STARTS: dict[str, Start] = {
    "full": _ids,
    "canvas": _canvas,
    "kv": _kv,
    "prefix": _cached(dual=False),
    "dual": _cached(dual=True),
}
