"""Seed 003's record of blocks that become clear: which positions hold which token, and which none yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from diffulex_edge.errors import UsageError


@dataclass
class DiffusionBlock:
    """`length` positions of a text from `start_pos` on. It is active until each has a token."""

    start_pos: int
    length: int
    mask_token_id: int
    is_active: bool = True
    accepted_token_ids: dict[int, int] = field(default_factory=dict)  # position in the block -> token

    def __post_init__(self) -> None:
        if self.start_pos < 0 or self.length < 1:
            raise UsageError(f"start_pos={self.start_pos} must be at least 0, length={self.length} at least 1")

    @property
    def global_mask_token_ids(self) -> list[int]:
        """Positions in the text that have no token yet."""
        return [self.start_pos + i for i in range(self.length) if i not in self.accepted_token_ids]

    @property
    def is_complete(self) -> bool:
        return len(self.accepted_token_ids) == self.length

    @property
    def token_ids(self) -> list[int]:
        """The block as a denoiser reads it: the mask id where there is no token yet."""
        return [self.accepted_token_ids.get(i, self.mask_token_id) for i in range(self.length)]

    def accept_token(self, local_pos: int, token_id: int) -> None:
        """Puts a token in. IndexError outside of the block; UsageError where there is one, or for the mask id."""
        self._check(local_pos)
        if local_pos in self.accepted_token_ids:
            raise UsageError(f"position {local_pos} already holds the token {self.accepted_token_ids[local_pos]}")
        if token_id == self.mask_token_id:
            raise UsageError(f"{token_id=} is the mask id: a position that holds it is not clear")
        self.accepted_token_ids[local_pos] = token_id
        self.is_active = not self.is_complete

    def get_global_pos(self, local_pos: int) -> int:
        """The position in the text."""
        self._check(local_pos)
        return self.start_pos + local_pos

    def _check(self, local_pos: int) -> None:
        if not 0 <= local_pos < self.length:
            raise IndexError(f"position {local_pos} is not one of a block of {self.length}")


class DiffusionBlockManager:
    """The blocks of one text, numbered in the order in which they were made."""

    def __init__(self, mask_token_id: int) -> None:
        self.mask_token_id = mask_token_id
        self.blocks: list[DiffusionBlock] = []

    def create_block(self, start_pos: int, length: int) -> int:
        """Adds a block and gives its number."""
        self.blocks.append(DiffusionBlock(start_pos=start_pos, length=length, mask_token_id=self.mask_token_id))
        return len(self.blocks) - 1

    def get_block(self, block_id: int) -> DiffusionBlock | None:
        return self.blocks[block_id] if 0 <= block_id < len(self.blocks) else None

    def get_active_blocks(self) -> list[tuple[int, DiffusionBlock]]:
        """(number, block) of those that have positions to fill."""
        return [(i, block) for i, block in enumerate(self.blocks) if block.is_active]

    def update_block(self, block_id: int, accepted_positions: Sequence[int], accepted_tokens: Sequence[int]) -> None:
        """Puts tokens in at positions of the block."""
        block = self.get_block(block_id)
        if block is None:
            raise IndexError(f"{block_id=} is not one of {len(self)} blocks")
        if len(accepted_positions) != len(accepted_tokens):
            raise UsageError(f"{len(accepted_positions)} positions for {len(accepted_tokens)} tokens")
        for position, token in zip(accepted_positions, accepted_tokens, strict=True):
            block.accept_token(position, token)

    def has_active_blocks(self) -> bool:
        return any(block.is_active for block in self.blocks)

    def get_all_mask_positions(self) -> list[int]:
        """Positions in the text, of all blocks, that have no token yet."""
        return [position for block in self.blocks for position in block.global_mask_token_ids]

    def reset(self) -> None:
        """Forgets all blocks."""
        self.blocks.clear()

    def __len__(self) -> int:
        return len(self.blocks)
