"""A scripted denoiser that writes down its calls, and a byte tokenizer: what the loop is tested with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.model.base import DenoiserSpec
from diffulex_edge.runtime import decode as decoding
from diffulex_edge.runtime.decode import Committed, Draft, Finished, decode
from diffulex_edge.runtime.plan import Plan

VOCAB, MASK, EOS = 19, 3, 2


@dataclass(frozen=True)
class Tape:
    """A context that remembers the ids, and how they came."""

    ids: Tensor  # (B, S)
    first: Tensor  # (B,)
    aligned: bool
    ahead: Tensor | None = None
    exact: bool = True

    def open(self, block: Tensor, banned: Sequence[int] = ()) -> Tensor:
        return block

    def facing(self, ahead: Tensor, at: Tensor | None = None) -> Tape:
        return replace(self, ahead=ahead)

    def refresh(self, seen: Any, step: Any) -> Tape:
        return self


class Script:
    """Logits from a random table of (position in the row, left neighbour, right neighbour): a row sees only itself."""

    def __init__(
        self, seed: int = 0, *, love: int | None = None, block_length: int | None = None, n_layers: int = 5
    ) -> None:
        contexts = {"memory": None, "canvas": None, "full": None}
        self.spec = DenoiserSpec(
            vocab_size=VOCAB,
            mask_id=MASK,
            n_layers=n_layers,
            block_length=block_length,
            contexts=contexts,
            trained_modes=(),
        )
        generator = torch.Generator().manual_seed(seed)
        self.place, self.left, self.right = (torch.randn(n, VOCAB, generator=generator) for n in (64, VOCAB, VOCAB))
        if love is not None:
            self.place[:, love] += 1000.0
        self.looked: list[tuple[Tensor, Tensor, int, Tensor]] = []  # block, t, depth, rows
        self.remembered: list[Tensor] = []
        self.began: list[tuple[str, int, int, Tensor | None]] = []

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Tape:
        self.began.append((kind, batch_size, length, first))
        zeros = torch.zeros(batch_size, dtype=torch.long)
        return Tape(zeros[:, None][:, :0], zeros if first is None else first, aligned=kind == "memory")

    def __call__(
        self,
        block: Tensor,
        context: Any = None,
        *,
        t: Any = None,
        depth: Any = None,
        exit: Any = None,
        rows: Any = None,
    ) -> tuple[Tensor, Tape]:
        context = self.begin("full", len(block), 0) if context is None else context
        if rows is not None and not rows.numel():
            self.remembered.append(block)
            return torch.zeros(0, VOCAB), replace(context, ids=torch.cat((context.ids, block), 1))
        self.looked.append((block, t, depth, rows))
        text = torch.cat((context.ids, block), 1)
        columns = torch.arange(text.shape[1]) - context.first[:, None]  # (B, S + L)
        left = torch.nn.functional.pad(text, (1, 0), value=0)[:, :-1].masked_fill(columns <= 0, 0)
        right = torch.nn.functional.pad(text, (0, 1), value=0)[:, 1:]
        logits = self.place[columns.clamp(0) % 64] + self.left[left] + self.right[right]
        logits = logits[:, context.ids.shape[1] :]
        return (logits if rows is None else logits[rows]), context


class Bytes:
    """A tokenizer of UTF-8 bytes behind four control ids."""

    pad_id, unk_id, eos_id, mask_id = 0, 1, 2, 3
    vocab_size = 260

    def encode(self, text: str) -> list[int]:
        return [byte + 4 for byte in text.encode()]

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(i - 4 for i in ids if i > 3).decode(errors="replace")


def finish(denoiser: Any, prompts: Any, plan: Plan | None) -> Finished:
    return decoding.finish(decode(denoiser, prompts, plan))


def events(denoiser: Any, prompts: Any, plan: Plan) -> tuple[list[Draft], list[Committed], Finished]:
    seen = list(decode(denoiser, prompts, plan))
    assert isinstance(seen[-1], Finished)
    return [e for e in seen if isinstance(e, Draft)], [e for e in seen if isinstance(e, Committed)], seen[-1]
