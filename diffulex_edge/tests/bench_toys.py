"""Denoisers whose right answers are known: the posterior of a Markov chain, a copyist, one that reads its prefix."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffulex_edge.model.base import DenoiserSpec
from diffulex_edge.model.context import FullContext, empty_full

SYMBOLS, FIRST, MASK, EOS = 5, 4, 3, 2  # ids 4..8 are text
VOCAB = FIRST + SYMBOLS


class Toy:
    """A Denoiser of one function: all ids (B, S + L + R) -> log p (B, S + L + R, V). Writes down its calls."""

    def __init__(self, answer: Callable[[Tensor], Tensor], contexts: tuple[str, ...] = ("canvas", "full")) -> None:
        self.answer = answer
        self.calls: list[dict[str, Any]] = []
        self.begun: list[tuple[str, int]] = []  # kind and length of every context asked for
        self.spec = DenoiserSpec(
            vocab_size=VOCAB,
            mask_id=MASK,
            n_layers=4,
            block_length=None,
            contexts=dict.fromkeys(contexts),
            trained_modes=("full", "block"),
        )

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> FullContext:
        assert kind in self.spec.contexts
        self.begun.append((kind, length))
        return empty_full(batch_size, torch.device("cpu"), first=first, canvas=kind == "canvas")

    def __call__(self, block, context=None, *, t=None, depth=None, exit=None, rows=None):
        context = context or self.begin("full", len(block), block.shape[1])
        self.calls.append({"block": block, "t": t, "depth": depth, "rows": rows})
        if rows is not None and not rows.numel():
            return torch.zeros(0, VOCAB), context.append(block)
        ids, here = context.spread(block)
        logits = self.answer(ids)[:, here]
        return (logits if rows is None else logits[rows]), context


class Chain:
    """A stationary Markov chain over 5 symbols, and texts of `length` of it: every probability by enumeration."""

    def __init__(self, length: int = 6, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.length = length
        self.transition = rng.dirichlet(np.full(SYMBOLS, 0.4), SYMBOLS)
        self.start = rng.dirichlet(np.full(SYMBOLS, 1.0))
        self.texts = np.array(list(itertools.product(range(SYMBOLS), repeat=length)))  # (5^6, 6)
        self.log_p = np.log(self.start[self.texts[:, 0]])
        self.log_p += np.log(self.transition[self.texts[:, :-1], self.texts[:, 1:]]).sum(1)

    def sample(self, n: int, seed: int) -> tuple[list[list[int]], np.ndarray]:
        """n documents of ids and their exact log-probabilities in nats."""
        rows = np.random.default_rng(seed).choice(len(self.texts), n, p=np.exp(self.log_p))
        return (self.texts[rows] + FIRST).tolist(), self.log_p[rows]

    def posterior(self, ids: Tensor) -> Tensor:
        """log p(token i | the visible tokens), exactly: the Bayes denoiser. ids (B, T) with T at most `length`."""
        texts = torch.from_numpy(self.texts[:, : ids.shape[1]] + FIRST)
        one_hot = torch.nn.functional.one_hot(texts, VOCAB).double().flatten(1)  # (n, T V)
        visible = torch.nn.functional.one_hot(ids, VOCAB).double() * (ids != MASK)[..., None]
        fits = visible.flatten(1) @ one_hot.T == (ids != MASK).sum(1, keepdim=True)  # (B, n)
        weight = fits * torch.from_numpy(np.exp(self.log_p))
        posterior = weight @ one_hot / weight.sum(1, keepdim=True)
        return posterior.view(*ids.shape, VOCAB).log().float()


def copyist(ids: Tensor) -> Tensor:
    """Certain of what it sees, clueless about what it does not: a model that learned identity."""
    sure = torch.nn.functional.one_hot(ids, VOCAB).float().log()
    return torch.where((ids == MASK)[..., None], torch.zeros(VOCAB), sure)


class Letters:
    """A Tokenizer of five letters, one id each: Devanagari, Latin and the space. Other characters vanish."""

    vocab_size, mask_id, eos_id, pad_id, fingerprint = VOCAB, MASK, EOS, 0, "letters"
    letters = "कम ab"

    def encode(self, text: str) -> list[int]:
        return [self.letters.index(letter) + FIRST for letter in text if letter in self.letters]

    def split_controls(self, text: str) -> list[str | int]:
        return [text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.letters[i - FIRST] for i in ids if i >= FIRST)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return [self.decode([i]) for i in ids]


def uniform(ids: Tensor) -> Tensor:
    """All five letters alike, and nothing else: log2 5 bits a character whatever the text."""
    return torch.full((*ids.shape, VOCAB), -1e9).index_fill(2, torch.arange(FIRST, VOCAB), 0.0)


def always(token: int) -> Callable[[Tensor], Tensor]:
    """Writes one token and no other."""
    return lambda ids: torch.zeros(*ids.shape, VOCAB).index_fill(2, torch.tensor([token]), 9.0)


def reader(ids: Tensor) -> Tensor:
    """Sure of the letter that follows a letter it sees, clueless elsewhere: after क "ab ab ab", after म "b ab ab"."""
    k, m, space, a, b = range(FIRST, VOCAB)
    table = torch.zeros(VOCAB, VOCAB)
    table[[k, m, space, a, b], [a, b, a, b, space]] = 20.0
    return table[torch.nn.functional.pad(ids, (1, 0), value=MASK)[:, :-1]] + uniform(ids)
