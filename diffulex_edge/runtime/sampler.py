"""From logits to guesses: a token for each hidden position, and how sure the model is of it. Knows no reveals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffulex_edge.errors import ArtefactError, UsageError


@dataclass(frozen=True, eq=False)
class Guess:
    """What might stand at the n hidden positions of a block, in row-major order."""

    token: Tensor  # (n,)
    probability: Tensor  # (n,) of the token, under the model's own distribution whatever the temperature
    logits: Tensor  # (n, V) banned ids are at -inf
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
    """Logits (n, V) in fp32 under which the ids (m,) cannot be drawn: a reveal that shows a mask would never end."""
    return logits.float().index_fill(1, ids, -torch.inf)


@dataclass(frozen=True)
class Greedy:
    """The likeliest token; of equals the smallest id."""

    def __call__(self, logits: Tensor, hidden: Tensor, generator: torch.Generator) -> Guess:
        return _guess(logits.argmax(-1), logits, hidden, generator)


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """Draws from softmax(logits / temperature), cut to the top_k likeliest and then to the nucleus of mass top_p.

    By Gumbel-max in fp64, as LLaDA does (arXiv:2502.09992): fp32 noise is truncated, which lowers the temperature
    in silence (arXiv:2409.02908). The nucleus: arXiv:1904.09751; the token that crosses top_p still belongs to it.
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
        kept = self.shape(logits)  # (n, V)
        exponential = torch.empty_like(kept).exponential_(generator=generator).clamp_min_(torch.finfo(kept.dtype).tiny)
        return _guess((kept - exponential.log()).argmax(-1), logits, hidden, generator)

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


def choose_sampler(temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0) -> Sampler:
    """The sampler that a user's three numbers mean: greedy at temperature 0, else a draw."""
    return Categorical(temperature=temperature, top_k=top_k, top_p=top_p) if temperature else Greedy()


def _guess(token: Tensor, logits: Tensor, hidden: Tensor, generator: torch.Generator) -> Guess:
    probability = logits.softmax(-1).gather(-1, token[:, None])[:, 0]
    if not probability.isfinite().all():
        raise ArtefactError(
            "the model's logits are not finite numbers: its weights are damaged, or overflow this number type"
        )
    return Guess(token, probability, logits, hidden, generator)
