"""Upper bounds on -log p of held-out text: the NELBO over windows, and each decoding mode's own bound block by block.

Exact-count masking: l ~ U{1..L} of L tokens are hidden, without replacement, and weigh L / l: an unbiased estimate
of the any-order bound without the blow-up of 1/t (LLaDA, arXiv:2502.09992). All in nats; an end of text is never
scored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffulex_edge.bench.progress import Advance, quiet
from diffulex_edge.diffusion.corruption import Corrupted, exact_count, permuted_strata
from diffulex_edge.diffusion.schedule import Linear, NoiseSchedule
from diffulex_edge.model.autoregressive import next_token_logits
from diffulex_edge.model.base import Context, Denoiser

Observe = Callable[[Tensor, Tensor, Tensor], None]  # log-probabilities (n, V), targets (n,), share masked (n,)
Depths = Callable[[Tensor], Tensor]  # share masked (B,) -> layers (B,)


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of a document. Its first `given` tokens were scored before and are context here."""

    ids: Tensor  # (T,)
    given: int
    document: int


@dataclass(frozen=True, eq=False)
class Bound:
    """Estimates for n windows from S draws each."""

    nats: NDArray[np.float64]  # (n, S)
    tokens: NDArray[np.int64]  # (n,)
    document: NDArray[np.int64]  # (n,)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a model is asked: the same for every bound."""

    schedule: NoiseSchedule = Linear()  # turns the share that is masked into the model's time t
    batch_tokens: int = 8192  # tokens in one forward, at most
    depths: Depths | None = None  # None: all layers
    observe: Observe | None = None
    advance: Advance = quiet  # told the tokens of each forward

    def log_probs(self, denoiser: Denoiser, noised: Corrupted, x: Tensor, context: Context, given: int = 0) -> Tensor:
        """log p of each masked token of x (B, L), 0 elsewhere: (B, L) in double precision.

        [MASK] is banned (SUBS). The first `given` columns are clean, and `noised` speaks of the others.
        """
        block = torch.cat((x[:, :given], noised.xt), 1)
        rows = torch.nn.functional.pad(noised.masked, (given, 0))
        t = self.schedule.time(noised.t)
        out = torch.zeros(x.shape, dtype=torch.float64)
        layers = self.depths(noised.t) if self.depths else torch.zeros(len(x))
        for depth in layers.unique().long().tolist():
            wanted = rows & (layers == depth)[:, None]
            logits, _ = denoiser(block, context, t=t, depth=depth or None, rows=wanted)
            logits = logits.float()
            logits[:, denoiser.spec.mask_id] = -torch.inf
            logits = logits.log_softmax(-1)
            targets = x[wanted]
            out[wanted] = logits.gather(1, targets[:, None])[:, 0].double()
            if self.observe:
                self.observe(logits, targets, noised.t[:, None].expand_as(x)[wanted])
        self.advance(block.numel())
        return out


def windows(documents: Sequence[Sequence[int]], size: int) -> list[Window]:
    """Windows of `size` tokens that cover every document. A short last one reaches back, and scores only the rest."""
    found = []
    for i, document in enumerate(documents):
        ids = torch.tensor(document, dtype=torch.long)
        for start in range(0, len(ids), size):
            begin = max(0, min(start, len(ids) - size))
            found.append(Window(ids[begin : start + size], start - begin, i))
    return found


@torch.inference_mode()
def nelbo(
    denoiser: Denoiser, parts: Sequence[Window], *, n_samples: int = 4, seed: int = 0, reading: Reading = Reading()
) -> Bound:
    """The bound of each window alone, the whole of it noised: what mode `full` is trained for.

    An autoregressive model's is exact, and one draw is all there is.
    """
    if denoiser.spec.autoregressive:
        return _exact(denoiser, parts, reading)
    generator = torch.Generator().manual_seed(seed)
    nats = np.zeros((len(parts), n_samples))
    for (length, given), members in by_shape(parts).items():
        counts = stratified_counts(len(members), n_samples, length - given, generator)
        x = torch.stack([parts[i].ids for i in members]).repeat_interleave(n_samples, 0)
        sums = []
        for rows in torch.arange(len(x)).split(max(1, reading.batch_tokens // length)):
            noised = exact_count(x[rows, given:], counts.flatten()[rows], denoiser.spec.mask_id, generator)
            context = denoiser.begin("full", len(rows), length)
            logp = reading.log_probs(denoiser, noised, x[rows], context, given)
            sums.append(-logp.sum(1) / noised.t)
        nats[members] = torch.cat(sums).view(-1, n_samples).numpy()
    return _bound(nats, parts)


def _exact(denoiser: Denoiser, parts: Sequence[Window], reading: Reading) -> Bound:
    """-log p of each window alone, token after token."""
    nats = np.zeros((len(parts), 1))
    for (length, given), members in by_shape(parts).items():
        for chunk in torch.tensor(members).split(max(1, reading.batch_tokens // (4 * length))):  # all rows have logits
            x = torch.stack([parts[i].ids for i in chunk.tolist()])
            logits = next_token_logits(denoiser, x).float()[:, given:]
            logits[..., denoiser.spec.mask_id] = -torch.inf
            logp, targets = logits.log_softmax(-1), x[:, given:]
            nats[chunk.numpy(), 0] = -logp.gather(2, targets[..., None])[..., 0].double().sum(1).numpy()
            if reading.observe:
                reading.observe(logp.flatten(0, 1), targets.flatten(), torch.ones(targets.numel()))
            reading.advance(x.numel())
    return _bound(nats, parts)


def _bound(nats: NDArray[np.float64], parts: Sequence[Window]) -> Bound:
    tokens = np.array([len(part.ids) - part.given for part in parts])
    return Bound(nats, tokens, np.array([part.document for part in parts]))


@torch.inference_mode()
def visible_log_probs(denoiser: Denoiser, parts: Sequence[Window], reading: Reading = Reading()) -> float:
    """Seed 000's PLL(t=0) in nats a token: log p(y_i | y) with nothing hidden, y_i included. Degenerate.

    A model that copies what it sees scores 0 on any text.
    """
    total, tokens = 0.0, 0
    for (length, given), members in by_shape(parts).items():
        for chunk in torch.tensor(members).split(max(1, reading.batch_tokens // (4 * length))):  # all rows have logits
            x = torch.stack([parts[i].ids for i in chunk.tolist()])
            logits, _ = denoiser(
                x, denoiser.begin("full", *x.shape), t=torch.zeros(len(x)), rows=torch.ones_like(x, dtype=torch.bool)
            )
            logits[:, denoiser.spec.mask_id] = -torch.inf
            logp = logits.float().log_softmax(-1).gather(1, x.flatten()[:, None]).view_as(x)
            total, tokens = total + float(logp[:, given:].double().sum()), tokens + logp[:, given:].numel()
            reading.advance(x.numel())
    return total / tokens


def stratified_counts(n: int, n_samples: int, length: int, generator: torch.Generator) -> Tensor:
    """How many of `length` tokens to hide, (n, n_samples): uniform in 1..length, spread over a row and over rows."""
    strata = torch.rand(n, n_samples, generator=generator).argsort(1)
    u = (strata + permuted_strata(n, generator, eps=0.0)[:, None]) / n_samples
    return (u * length).long().clamp(max=length - 1) + 1


def by_shape(parts: Sequence[Window]) -> dict[tuple[int, int], list[int]]:
    """Which windows have the same length and the same number of given tokens, so that they can share a forward."""
    groups = defaultdict(list)
    for i, part in enumerate(parts):
        groups[len(part.ids), part.given].append(i)
    return dict(groups)
