"""`block_nelbo`: what each decoding mode's own view of the text is worth, on the same blocks with the same masks.

A block is noised and scored given what the mode has in hand: all clean text before it, the frozen memory of that
text, the text on both sides, nothing, or the memory of another document. Teacher-forced, so it measures
conditionals, not samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffulex_edge.bench.bounds import Reading, Window, by_shape, stratified_counts
from diffulex_edge.diffusion.corruption import Corrupted, exact_count
from diffulex_edge.model.base import NONE, Denoiser
from diffulex_edge.runtime.pte import PteDenoiser


@dataclass(frozen=True)
class Mode:
    """What a mode sees around a block."""

    kinds: tuple[str, ...]  # the first of these contexts that the model has
    history: Callable[[Tensor, Tensor], Tensor | None]  # (own text, another document's text) -> what is committed
    blank: bool = False  # what lies ahead is hidden, as it is when a text is being written


def own(text: Tensor, other: Tensor) -> Tensor:
    return text


def another(text: Tensor, other: Tensor) -> Tensor:
    return other


def nothing(text: Tensor, other: Tensor) -> None:
    return None


JUDGED: dict[str, Mode] = {
    "full": Mode(("canvas",), own),
    "block": Mode(("full", "kv"), own),
    "block_frozen": Mode(("memory",), own),
    "isolated": Mode(("memory", "full", "kv"), nothing),
    "memory_shuffled": Mode(("memory",), another),
}
WRITTEN = Mode(
    ("canvas",), own, blank=True
)  # an approximate cache is exact at the first look, which is all it is asked
MODES = {
    **JUDGED,
    "memory": JUDGED["block_frozen"],
    "kv": Mode(("kv",), own),
    "canvas": WRITTEN,
    "dual": WRITTEN,
    "prefix": WRITTEN,
}


@dataclass(frozen=True, eq=False)
class BlockBounds:
    """Estimates for n stretches of up to K blocks, S draws each; blocks that a stretch does not have are 0."""

    nats: dict[str, NDArray[np.float64]]  # mode -> (n, S, K)
    tokens: NDArray[np.int64]  # (n, K)
    document: NDArray[np.int64]  # (n,)
    missing: dict[str, str]  # mode -> why it has no figure


def stretches(documents: Sequence[Sequence[int]], block_size: int, most: int) -> list[Window]:
    """The first `most` tokens of each document, cut to whole blocks; a document shorter than a block is one block."""
    found = []
    for i, document in enumerate(documents):
        length = min(len(document), most)
        if length:
            whole = length - length % block_size if length > block_size else length
            found.append(Window(torch.tensor(document[:whole], dtype=torch.long), 0, i))
    return found


@torch.inference_mode()
def block_bounds(
    denoiser: Denoiser,
    parts: Sequence[Window],
    *,
    block_size: int = 32,
    n_samples: int = 2,
    seed: int = 0,
    modes: Sequence[str] = tuple(JUDGED),
    reading: Reading = Reading(),
) -> BlockBounds:
    """The bound of every block under every mode, paired: all modes see the same masks, and so do a model's programs."""
    generator = torch.Generator().manual_seed(seed)
    missing = {name: reason for name in modes if (reason := _absent(denoiser, MODES[name], parts))}
    tokens = block_tokens(parts, block_size)
    nats = {name: np.zeros((len(parts), n_samples, tokens.shape[1])) for name in modes if name not in missing}
    for (length, _), members in by_shape(parts).items():
        for chunk in torch.tensor(members).split(max(1, reading.batch_tokens // length)):
            x = torch.stack([parts[i].ids for i in chunk])
            other = torch.stack([_another_text(parts, i) for i in chunk.tolist()])
            blocks = x.unflatten(1, (-1, min(block_size, length)))  # (b, K, L)
            draws = [_draws(block, denoiser.spec.mask_id, generator, n_samples) for block in blocks.unbind(1)]
            for rows in torch.arange(len(chunk)).split(1 if isinstance(denoiser, PteDenoiser) else len(chunk)):
                seen = [[_rows(noised, rows) for noised in draw] for draw in draws]
                for name in nats:
                    values = _stretch(denoiser, x[rows], other[rows], seen, MODES[name], reading)
                    nats[name][chunk[rows].numpy(), :, : blocks.shape[1]] = values.numpy()
    return BlockBounds(nats, tokens, np.array([part.document for part in parts]), missing)


def block_tokens(parts: Sequence[Window], block_size: int) -> NDArray[np.int64]:
    """How many tokens each block of each stretch has, (n, K)."""
    lengths = np.array([len(part.ids) for part in parts])[:, None]
    edges = np.arange(-(-lengths.max() // block_size))[None] * block_size
    return (lengths - edges).clip(0, block_size)


def _stretch(
    denoiser: Denoiser, x: Tensor, other: Tensor, draws: list[list[Corrupted]], mode: Mode, reading: Reading
) -> Tensor:
    """Nats of each block of x (b, T) for each draw (b, S, K). The context moves on by clean blocks, as in decoding."""
    length = draws[0][0].xt.shape[1]
    context = denoiser.begin(kind_of(denoiser, mode), len(x), x.shape[1])
    history = mode.history(x, other)
    nats = []
    for k, draw in enumerate(draws):
        here, beyond = slice(k * length, (k + 1) * length), x[:, (k + 1) * length :]
        beyond = torch.full_like(beyond, denoiser.spec.mask_id) if mode.blank else beyond
        facing = context.facing(beyond)
        each = [-reading.log_probs(denoiser, noised, x[:, here], facing).sum(1) / noised.t for noised in draw]
        nats.append(torch.stack(each, 1))  # (b, S)
        if history is not None and k + 1 < len(draws):
            _, context = denoiser(history[:, here], facing, rows=NONE)
    return torch.stack(nats, 2)


def _draws(block: Tensor, mask_id: int, generator: torch.Generator, n_samples: int) -> list[Corrupted]:
    counts = stratified_counts(len(block), n_samples, block.shape[1], generator)
    return [exact_count(block, count, mask_id, generator) for count in counts.unbind(1)]


def _rows(noised: Corrupted, rows: Tensor) -> Corrupted:
    return Corrupted(noised.xt[rows], noised.masked[rows], noised.t[rows])


def _another_text(parts: Sequence[Window], i: int) -> Tensor:
    """As many tokens as stretch i has, from the stretches of other documents that follow it; the order is a circle."""
    wanted, found = len(parts[i].ids), []
    following = [part.ids for part in [*parts[i + 1 :], *parts[:i]] if part.document != parts[i].document]
    if not following:
        return parts[i].ids
    while wanted > 0:
        for ids in following:
            found.append(ids[:wanted])
            wanted -= len(found[-1])
            if wanted <= 0:
                break
    return torch.cat(found)


def kind_of(denoiser: Denoiser, mode: Mode) -> str:
    """The context that a mode uses of this model; empty where the model has none for it."""
    return next((kind for kind in mode.kinds if kind in denoiser.spec.contexts), "")


def _absent(denoiser: Denoiser, mode: Mode, parts: Sequence[Window]) -> str:
    """Why a mode cannot be measured; empty where it can."""
    if denoiser.spec.autoregressive:
        return "an autoregressive model has no noised blocks"
    kind = kind_of(denoiser, mode)
    if not kind:
        return f"the model has no context {' or '.join(mode.kinds)}; it has {', '.join(denoiser.spec.contexts)}"
    limit, longest = denoiser.spec.contexts[kind], max(len(part.ids) for part in parts)
    if limit is not None and longest > limit:
        return f"stretches of {longest} tokens pass the {limit} that context {kind} takes"
    if mode.history is another and len({part.document for part in parts}) < 2:
        return "needs a second document"
    return ""
