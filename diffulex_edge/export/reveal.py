"""The reveal inside a graph: RevealTop and RevealAbove of runtime/reveal.py for a greedy guess, in one expression.

Logits never leave the graph. No sort, which the runtime does not have: a position's rank is how many beat it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def reveal(
    logits: Tensor,
    block: Tensor,
    mask_id: int,
    banned: Sequence[int],
    asked: Tensor,
    count: Tensor,
    threshold: Tensor,
) -> tuple[Tensor, Tensor]:
    """The block (1, L) with the `count` surest guesses shown, and all that are at least `threshold` probable.

    logits (1, L, V); banned: ids that are never shown, the mask's among them; asked (), int64: hidden columns from
    there on are padding and stay; count () of at least one, int64; threshold () of a probability, above 1 for none.
    Also gives how probable each column's guess is, (1, L). Of equals the smallest index goes first.
    """
    length, vocab_size = logits.shape[1:]
    logits = logits.float() + torch.zeros(vocab_size).index_fill(0, torch.tensor(banned), -torch.inf)
    token = logits.argmax(-1)  # (1, L)
    probability = logits.softmax(-1).gather(-1, token[..., None])[..., 0]  # cheaper than another search
    columns = torch.arange(length)
    hidden = (block == mask_id) & (columns < asked)
    score = torch.where(hidden, probability, -1.0)
    mine, other = score[0, :, None], score[0, None]
    earlier = columns[None] < columns[:, None]  # (L, L): the other stands before me
    rank = ((other > mine) | ((other == mine) & earlier)).sum(1)  # (L,)
    shown = hidden & ((rank < count) | (probability >= threshold))
    return torch.where(shown, token, block), probability
