"""Where rows end before their length: at a stop id, or when something outside the loop has had enough."""

from __future__ import annotations

from dataclasses import replace

import torch

from diffulex_edge.runtime.decode import Committed, Finished, decode
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.tests.runtime_toys import EOS, Script, finish

SMALL = Plan(max_new_tokens=8, block_size=4, steps=2)


def test_a_row_ends_at_its_stop_id_and_the_loop_when_all_have() -> None:
    free = finish(Script(4), [[5], [9, 9]], Plan(max_new_tokens=24, block_size=4, steps=2))
    stop = next(token for token in free.tokens[0][4:] if token not in free.tokens[0][:4])
    plan = Plan(max_new_tokens=24, block_size=4, steps=2, stop_ids=(stop,))
    one = finish(Script(4), [[5]], plan)
    cut = free.tokens[0].index(stop) + 1
    assert one.tokens == [free.tokens[0][:cut]]
    assert one.texts == [[5, *free.tokens[0][:cut]]]
    assert one.forwards < free.forwards
    both = finish(Script(4), [[5], [9, 9]], plan)
    assert both.tokens[0] == one.tokens[0]
    assert both.tokens[1] == finish(Script(4), [[9, 9]], plan).tokens[0]


def test_a_stop_id_in_the_prompt_does_not_stop() -> None:
    finished = finish(Script(), [[EOS, 5, EOS]], replace(SMALL, stop_ids=(EOS,), banned=(EOS,)))
    assert len(finished.tokens[0]) == 8


def test_no_token_is_decoded_for_a_row_that_has_ended() -> None:
    denoiser = Script(love=EOS)
    finished = finish(denoiser, [[5], [6]], replace(SMALL, max_new_tokens=40, stop_ids=(EOS,)))
    assert finished.tokens == [[EOS], [EOS]]
    assert len(denoiser.looked) == 2
    assert denoiser.remembered == []


def test_a_row_may_be_ended_from_outside_behind_any_block() -> None:
    told: list[list[list[int]]] = []

    def until(event: Committed) -> torch.Tensor:
        told.append([row[asked].tolist() for row, asked in zip(event.block, event.asked, strict=True)])
        return torch.tensor([len(told) >= 1, len(told) >= 2])

    plan = Plan(max_new_tokens=16, block_size=4, steps=4)
    *_, free = decode(Script(), [[], []], plan)
    *_, ended = decode(Script(), [[], []], plan, until=until)
    assert isinstance(free, Finished)
    assert isinstance(ended, Finished)
    assert ended.tokens == [free.tokens[0][:4], free.tokens[1][:8]]
    assert ended.texts == ended.tokens
    assert (ended.forwards, ended.commits) == (8, 1)
    assert told == [[row[:4] for row in free.tokens], [[], free.tokens[1][4:8]]]
