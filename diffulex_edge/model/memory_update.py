"""How EcoHybrid's memory takes in a finished block, m_{k+1} = U(m_k, y_k): by a gate, or as one of the last few.

It knows one layer's bank and what the slots made of the block; not the tokens, and not who reads the bank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Norm = Callable[[Tensor], Tensor]


class MemoryUpdate(Protocol):
    """U, of one layer. The bank has the same size after every block."""

    def start(self, bank0: Tensor) -> Tensor:
        """The bank before any text, of the learned bank0 (M, D)."""
        ...

    def update(self, bank: Tensor, new: Tensor, norm: Norm) -> Tensor:
        """The bank with the memory `new` (B, M, D) of a block in it. norm: the one that the bank is read through."""
        ...


class Gated(nn.Linear):
    """z = sigmoid(W [n(C), n(m)] + b), C <- (1 - z) C + z n(m), for a bank (B, M, D). arXiv:2203.07852.

    With timescales slot j's z is scaled by the (j mod their number)-th of them: what changes little remembers long. No
    parameters; fixed paces after Clockwork RNN, arXiv:1402.3511; seed 002, section 9.3.
    """

    pace: Tensor | None  # (M, 1)

    def __init__(self, config: Any) -> None:
        super().__init__(2 * config.d_model, config.d_model)
        nn.init.constant_(self.bias, -1.0)  # remember at first
        scales, slots = config.memory_timescales, config.memory_slots
        pace = torch.tensor([scales[j % len(scales)] for j in range(slots)])[:, None] if scales else None
        self.register_buffer("pace", pace, persistent=False)

    def start(self, bank0: Tensor) -> Tensor:
        return bank0

    def update(self, bank: Tensor, new: Tensor, norm: Norm) -> Tensor:
        z = torch.sigmoid(self(torch.cat((norm(bank), new), -1)))
        z = z if self.pace is None else z * self.pace
        return torch.lerp(bank, new, z.to(new.dtype))


class Accumulated(nn.Module):
    """The memories of the last J blocks side by side, (B, J * M, D), oldest first. AutoCompressors, arXiv:2305.14788.

    There every block's are kept; here the oldest makes room, so a step costs the same whatever the length of the text.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.blocks = config.memory_blocks

    def start(self, bank0: Tensor) -> Tensor:
        return bank0.repeat(self.blocks, 1)

    def update(self, bank: Tensor, new: Tensor, norm: Norm) -> Tensor:
        return torch.cat((bank[:, new.shape[1] :], new), 1)


UPDATES: dict[str, Callable[[Any], Any]] = {"gated": Gated, "accumulate": Accumulated}
