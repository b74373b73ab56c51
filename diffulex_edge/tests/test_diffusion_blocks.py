"""Seed 003's blocks, and what they are to the loop: the engine leaves none unfinished, wherever its blocks begin."""

from __future__ import annotations

from typing import Any

import pytest

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.decode import Committed, decode
from diffulex_edge.runtime.diffusion import (
    DiffusionBlock,
    DiffusionBlockManager,
    DiffusionEngine,
    DiffusionGenerationConfig,
)
from diffulex_edge.tests.toys import backup, eco

MASK = 3


def test_a_block_begins_hidden_and_is_complete_when_each_position_has_a_token() -> None:
    block = DiffusionBlock(10, 3, MASK)
    assert block.global_mask_token_ids == [10, 11, 12]
    assert block.token_ids == [MASK] * 3
    for i, (local, left) in enumerate(((1, [10, 12]), (0, [12]), (2, []))):
        assert block.is_active
        assert not block.is_complete
        block.accept_token(local, 20 + i)
        assert block.global_mask_token_ids == left
    assert block.token_ids == [21, 20, 22]
    assert block.is_complete
    assert not block.is_active


def test_positions_of_a_block_are_those_of_the_text_from_its_start() -> None:
    block = DiffusionBlock(10, 3, MASK)
    assert [block.get_global_pos(i) for i in range(3)] == [10, 11, 12]
    for outside in (-1, 3):
        with pytest.raises(IndexError, match=f"position {outside} is not one of a block of 3"):
            block.get_global_pos(outside)
        with pytest.raises(IndexError, match=f"position {outside}"):
            block.accept_token(outside, 5)


def test_what_is_accepted_stays() -> None:
    block = DiffusionBlock(0, 2, MASK)
    block.accept_token(0, 9)
    with pytest.raises(ValueError, match="position 0 already holds the token 9"):
        block.accept_token(0, 8)
    assert block.accepted_token_ids == {0: 9}


def test_the_mask_is_no_token() -> None:
    with pytest.raises(UsageError, match="token_id=3 is the mask id"):
        DiffusionBlock(0, 2, MASK).accept_token(0, MASK)


@pytest.mark.parametrize(("start", "length"), [(-1, 4), (0, 0), (0, -2)])
def test_a_block_of_nothing_is_refused(start: int, length: int) -> None:
    with pytest.raises(ValueError, match=f"start_pos={start} must be at least 0, length={length} at least 1"):
        DiffusionBlockManager(MASK).create_block(start, length)


def test_blocks_are_numbered_and_leave_the_active_ones_when_they_are_full() -> None:
    blocks = DiffusionBlockManager(MASK)
    assert not blocks.has_active_blocks()
    assert [blocks.create_block(5, 2), blocks.create_block(7, 2)] == [0, 1]
    assert len(blocks) == 2
    assert blocks.get_all_mask_positions() == [5, 6, 7, 8]
    blocks.update_block(0, [1, 0], [30, 31])
    assert [number for number, _ in blocks.get_active_blocks()] == [1]
    assert blocks.get_all_mask_positions() == [7, 8]
    assert blocks.has_active_blocks()
    first: Any = blocks.get_block(0)
    assert first.token_ids == [31, 30]
    assert (first.mask_token_id, blocks.get_block(2), blocks.get_block(-1)) == (MASK, None, None)
    blocks.reset()
    assert len(blocks) == 0
    assert blocks.create_block(0, 1) == 0


def test_an_update_that_does_not_fit_is_refused_and_names_what_does_not() -> None:
    blocks = DiffusionBlockManager(MASK)
    blocks.create_block(0, 2)
    with pytest.raises(IndexError, match="block_id=1 is not one of 1 blocks"):
        blocks.update_block(1, [0], [5])
    with pytest.raises(ValueError, match="1 positions for 2 tokens"):
        blocks.update_block(0, [0], [5, 6])


def test_the_blocks_of_a_run_are_those_that_the_stream_tells_of() -> None:
    """The record, kept beside a run of the loop: each position is accepted once, and no block stays active."""
    engine, config = DiffusionEngine(model=eco()), DiffusionGenerationConfig(max_new_tokens=25, num_iterations=2)
    blocks = DiffusionBlockManager(eco().spec.mask_id)
    for event in decode(engine.model, [[5, 6, 7]], engine.plan(config)):
        if isinstance(event, Committed):
            where = event.asked[0].nonzero()[:, 0]
            block = blocks.create_block(event.start + int(where[0]), len(where))
            blocks.update_block(block, list(range(len(where))), event.block[0, where].tolist())
    assert not blocks.has_active_blocks()
    tokens = [token for block in blocks.blocks for token in block.token_ids]
    assert [5, 6, 7, *tokens] == engine.generate([5, 6, 7], config)
    assert [block.start_pos for block in blocks.blocks] == [3, 10, 20]


def test_blocks_lie_on_the_models_grid_whatever_the_prompt() -> None:
    engine = DiffusionEngine(model=backup(block_length=4))
    config = DiffusionGenerationConfig(max_new_tokens=9, block_size=4, num_iterations=1)
    for length in range(9):
        starts = [
            event.start
            for event in decode(engine.model, [[5] * length], engine.plan(config))
            if isinstance(event, Committed)
        ]
        assert starts == list(range(length // 4 * 4, length + 9, 4))
