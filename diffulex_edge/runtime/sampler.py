"""From logits to guesses: a token for each hidden position, and how sure the model is of it. Knows no reveals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from diffulex_edge.errors import ArtefactError, UsageError
from diffulex_edge.model.sampling import Sampling


@dataclass(frozen=True, eq=False)
class Guess:
    """What might stand at the n hidden positions of a block, in row-major order."""

    token: Tensor  # (n,)
    probability: Tensor  # (n,) of the token, under the model's own distribution whatever the temperature
    logits: Tensor  # (n, V) banned ids are at -inf; (n, 0) from a program that keeps them to itself
    hidden: Tensor  # (B, L) bool: where the n positions are
    generator: torch.Generator  # the run's source of chance

    def within(self, where: Tensor) -> Guess:
        """The same guess, of those hidden positions only that lie in `where` (B, L)."""
        kept = where[self.hidden]  # (n,)
        return Guess(self.token[kept], self.probability[kept], self.logits[kept], self.hidden & where, self.generator)


class Sampler(Protocol):
    def __call__(self, logits: Tensor, hidden: Tensor, generator: torch.Generator) -> Guess:
        """From logits (n, V) of the hidden positions (B, L), in which banned ids are at -inf."""
        ...


def ban(logits: Tensor, ids: Tensor) -> Tensor:
    """Logits (..., V) in fp32 under which the ids (m,) cannot be drawn: a reveal that shows a mask would never end."""
    return logits.float().index_fill(-1, ids, -torch.inf)


@dataclass(frozen=True)
class Greedy:
    """The likeliest token; of equals the smallest id."""

    def __call__(self, logits: Tensor, hidden: Tensor, generator: torch.Generator) -> Guess:
        return _guess(likeliest(logits), logits, hidden, generator)


CHUNK = 128  # logits


def likeliest(logits: Tensor) -> Tensor:
    """argmax (n,) of each row (n, V): of its chunk with the highest logit, four times faster on a CPU than of all."""
    fill = -logits.shape[1] % CHUNK
    chunks = (F.pad(logits, (0, fill), value=-torch.inf) if fill else logits).unflatten(1, (-1, CHUNK))
    which = chunks.amax(-1).argmax(-1)  # (n,)
    return which * CHUNK + chunks[torch.arange(len(which), device=which.device), which].argmax(-1)


DRAWS = 4  # that a nucleus may miss before it is sorted out


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """Draws from softmax(logits / temperature), cut to the top_k likeliest and then to the nucleus of mass top_p.

    By inversion of the cumulated probabilities with chance in fp64: Gumbel noise in fp32 is truncated, which lowers the
    temperature in silence (arXiv:2409.02908), and in fp64 it costs more than the model. The nucleus: arXiv:1904.09751;
    the token that crosses top_p still belongs to it. A draw from outside of it is drawn again, so nothing is sorted.
    """

    temperature: float = 1.0  # above 0; Greedy is the limit at 0
    top_k: int = 0  # tokens kept; 0: all
    top_p: float = 1.0  # probability mass kept; 1: all

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise UsageError(f"temperature={self.temperature} must be above 0 and finite; 0 is the greedy sampler's")
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise UsageError(f"top_k={self.top_k} must be an integer of at least 0 (0: all tokens)")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p={self.top_p} must be in (0, 1]")

    def __call__(self, logits: Tensor, hidden: Tensor, generator: torch.Generator) -> Guess:
        scaled, ids = logits.float() / self.temperature, None
        if self.top_k:
            scaled, ids = scaled.topk(min(self.top_k, scaled.shape[1]))
        token = _draw(scaled.softmax(-1), self.top_p, generator)
        return _guess(token if ids is None else ids.gather(1, token[:, None])[:, 0], logits, hidden, generator)

    def shape(self, logits: Tensor) -> Tensor:
        """The logits (n, V) in fp64 of what is drawn from: over the temperature, with all that is cut at -inf."""
        scaled = logits.double() / self.temperature
        if not self.top_k and self.top_p == 1:
            return scaled
        values, order = scaled.sort(dim=-1, descending=True, stable=True)
        if self.top_k:
            values[:, self.top_k :] = -torch.inf
        mass = values.softmax(-1)
        values = values.masked_fill(mass.cumsum(-1) - mass >= self.top_p, -torch.inf)
        return torch.empty_like(scaled).scatter_(-1, order, values)


def sampler_of(drawn: Sampling) -> Sampler:
    """The sampler that draws as a model's makers say."""
    return choose_sampler(drawn.temperature, drawn.top_k, drawn.top_p)


def choose_sampler(temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0) -> Sampler:
    """The sampler that a user's three numbers mean: greedy at temperature 0, else a draw."""
    return Categorical(temperature=temperature, top_k=top_k, top_p=top_p) if temperature else Greedy()


def _draw(p: Tensor, top_p: float, generator: torch.Generator) -> Tensor:
    """A column (n,) of each row of probabilities (n, w), out of its nucleus."""
    reach = p.cumsum(-1, dtype=torch.float64)
    token = _invert(reach, generator)
    if top_p == 1:
        return token
    left = (_before(p, token) >= top_p).nonzero()[:, 0]  # rows whose draw lies outside
    for _ in range(DRAWS):
        if not len(left):
            return token
        token[left] = _invert(reach[left], generator)
        left = left[_before(p[left], token[left]) >= top_p]
    values, ids = p[left].sort(dim=-1, descending=True, stable=True)
    values[values.cumsum(-1, dtype=torch.float64) - values >= top_p] = 0
    inside = _invert(values.cumsum(-1, dtype=torch.float64), generator)
    token[left] = ids.gather(1, inside[:, None])[:, 0]
    return token


def _invert(reach: Tensor, generator: torch.Generator) -> Tensor:
    """A column (n,) of each row by its share of the cumulated masses (n, w)."""
    chance = torch.rand(len(reach), 1, generator=generator, dtype=torch.float64, device=reach.device)
    return torch.searchsorted(reach, chance * reach[:, -1:], right=True)[:, 0].clamp(max=reach.shape[1] - 1)


def _before(p: Tensor, token: Tensor) -> Tensor:
    """The mass (n,) of what is likelier than the token (n,), of equals of those with a smaller id."""
    own = p.gather(1, token[:, None])
    likelier = p > own
    equal = p == own
    if int(equal.sum()) > len(p):
        likelier |= equal & (torch.arange(p.shape[1], device=p.device) < token[:, None])
    return torch.where(likelier, p, 0.0).sum(-1, dtype=torch.float64)


def _guess(token: Tensor, logits: Tensor, hidden: Tensor, generator: torch.Generator) -> Guess:
    probability = logits.softmax(-1).gather(-1, token[:, None])[:, 0]
    if not probability.isfinite().all():
        raise ArtefactError(
            "the model's logits are not finite numbers: its weights are damaged, or overflow this number type"
        )
    return Guess(token, probability, logits, hidden, generator)
