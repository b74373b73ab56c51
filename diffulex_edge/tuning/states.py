"""What risk probes learn from: a model's own way through texts, and what shallower layers would have shown.

States are on-policy: blocks as full-depth decoding leaves them, partly hidden. A token would change if the block, after
a step whose look ended at a layer, held another id in its place than after the whole look: a token, or still the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.files import atomic
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.decode import Draft, decode
from diffulex_edge.runtime.early_exit import nearest_kind
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.sampler import Greedy, Guess, ban
from diffulex_edge.runtime.step import Step
from diffulex_edge.sedac.free import SCORES

FREE = tuple(SCORES)  # what a probe has to beat


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerStates:
    """n hidden tokens behind one layer."""

    x: Tensor  # (n, D), half precision
    changed: Tensor  # (n,) bool
    free: dict[str, Tensor]  # name -> (n,): the higher, the riskier


@dataclass(frozen=True, kw_only=True, eq=False)
class States:
    """What was collected."""

    layers: dict[int, LayerStates]  # by the model's layer, from 0
    masked: Tensor  # (n,) share of the block that was hidden
    t: Tensor  # (n,)
    kind: Tensor  # (n,) of the nearest token that is shown, by `nearest_kind`; 0 where none is
    document: Tensor  # (n,) which prompt

    def split(self, held_out: float) -> tuple[States, States]:
        """By document: no text is on both sides. The last share of them is held out."""
        border = int(self.document.max()) + 1 - max(1, int(held_out * (int(self.document.max()) + 1)))
        return self._take(self.document < border), self._take(self.document >= border)

    def _take(self, rows: Tensor) -> States:
        layers = {
            i: LayerStates(x=s.x[rows], changed=s.changed[rows], free={k: v[rows] for k, v in s.free.items()})
            for i, s in self.layers.items()
        }
        named = {name: getattr(self, name)[rows] for name in _OVER}
        return replace(self, layers=layers, **named)


_OVER = ("masked", "t", "kind", "document")  # what is told of a token whatever the layer


@dataclass(eq=False)
class _Recorder:
    """An ExitController that lets every look run whole and keeps what the layers made of the block."""

    wanted: set[int]
    seen: dict[int, Tensor] = field(default_factory=dict)  # (1, L, D)

    def start(self, block: Tensor, hidden: Tensor, step: Step) -> _Recorder:
        self.seen = {}
        return self

    def __call__(self, layer: int, x: Tensor) -> None:
        if layer in self.wanted:
            self.seen[layer] = x


@torch.inference_mode()
def collect(
    denoiser: Denoiser,
    prompts: Iterable[Sequence[int]],
    plan: Plan,
    layers: Sequence[int],
    advance: Callable[[int], None] = lambda n: None,
    *,
    kinds: Tensor | None = None,
) -> States:
    """Decodes each prompt alone and greedily, by the plan; its reveal must be one that remembers nothing.

    layers: behind which to look, from 0, none of them the last. The head is applied to each: this costs about as many
    decodings as there are layers. kinds (V,): of each token, from 1; 0 and None: of none.
    """
    n_layers = denoiser.spec.n_layers
    if not layers or any(not 0 <= i < n_layers - 1 for i in layers):
        raise UsageError(f"layers={tuple(layers)} must lie between 0 and {n_layers - 2}: all but the last have risks")
    recorder, kinds = _Recorder(set(layers)), torch.zeros(denoiser.spec.vocab_size).long() if kinds is None else kinds
    plan = replace(plan, sampler=Greedy(), exit=recorder)
    rows: list[dict[str, Any]] = []
    for document, prompt in enumerate(prompts):
        before: dict[int, Tensor] = {}  # block's start -> the block as the step found it
        for event in decode(denoiser, [list(prompt)], plan):
            if isinstance(event, Draft):
                rows.append({**_moment(denoiser, plan, recorder, event, before, kinds), "document": document})
        advance(1)
    if not rows:
        raise UsageError("there is nothing to learn from: no prompt was given, or no token was asked for")
    return _joined(rows, layers)


def _moment(
    denoiser: Any, plan: Plan, recorder: _Recorder, draft: Draft, before: dict[int, Tensor], kinds: Tensor
) -> dict[str, Any]:
    hidden = draft.guess.hidden
    block = before.get(draft.start, torch.where(draft.asked, denoiser.spec.mask_id, draft.block))
    before[draft.start] = draft.block
    banned = torch.tensor(sorted({denoiser.spec.mask_id, *plan.banned}))
    found: dict[str, Any] = {"layers": {}, "n": int(hidden.sum()), "t": float(draft.step.t[0])}
    found |= {"masked": float(hidden.float().mean()), "kind": nearest_kind(kinds, block, hidden)[hidden]}
    last: Tensor | None = None
    for layer, x in sorted(recorder.seen.items()):
        logits = ban(denoiser.ends.logits(x, hidden), banned)
        guess: Guess = plan.sampler(logits, hidden, draft.guess.generator)
        after, _ = plan.reveal(guess, block, ~draft.asked, draft.step, None)
        state = x[hidden].float()
        free = {name: score(logits, state, last) for name, score in SCORES.items()}
        last = state
        changed = (after != draft.block)[hidden]
        found["layers"][layer] = (state.half(), changed, free)
    return found


def _joined(rows: list[dict[str, Any]], layers: Sequence[int]) -> States:
    def over(name: str, dtype: torch.dtype) -> Tensor:
        return torch.cat([torch.full((row["n"],), row[name], dtype=dtype) for row in rows])

    joined = {
        i: LayerStates(
            x=torch.cat([row["layers"][i][0] for row in rows]),
            changed=torch.cat([row["layers"][i][1] for row in rows]),
            free={name: torch.cat([row["layers"][i][2][name] for row in rows]) for name in FREE},
        )
        for i in layers
    }
    return States(
        layers=joined,
        masked=over("masked", torch.float32),
        t=over("t", torch.float32),
        kind=torch.cat([row["kind"] for row in rows]),
        document=over("document", torch.long),
    )


def write_states(path: Path, states: States, orders: Sequence[Tensor]) -> None:
    """The states and the orders of the channels as a safetensors file; 400 bytes a token and layer at D = 192."""
    tensors = {name: getattr(states, name) for name in _OVER}
    for i, seen in states.layers.items():
        tensors |= {f"{i}.x": seen.x, f"{i}.changed": seen.changed}
        tensors |= {f"{i}.{name}": score for name, score in seen.free.items()}
    tensors |= {f"order.{i}": order for i, order in enumerate(orders)}
    with atomic(path) as file:
        file.write(save({name: value.contiguous() for name, value in tensors.items()}))


def read_states(path: Path) -> tuple[States, list[Tensor]]:
    """What `write_states` was given. ArtefactError where the file is another."""
    try:
        tensors = load_file(path)
        layers = {
            int(name.removesuffix(".x")): LayerStates(
                x=value,
                changed=tensors[name.replace(".x", ".changed")],
                free={score: tensors[name.replace("x", score)] for score in FREE},
            )
            for name, value in tensors.items()
            if name.endswith(".x")
        }
        rest = {name: tensors[name] for name in _OVER}
        orders = [tensors[f"order.{i}"] for i in range(sum(name.startswith("order.") for name in tensors))]
    except (OSError, SafetensorError, KeyError) as error:
        raise ArtefactError(f"{path}: no states that `sedac collect` wrote: {error}") from None
    return States(layers=layers, **rest), orders
