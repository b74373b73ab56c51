"""Recall through frozen memory: the tables leave no other way to the values, and a short training finds that way."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffulex_edge.bench.recall import CHECKED, MASK, RecallConfig, learner, recall, tables, value_accuracy
from diffulex_edge.cli.main import main
from diffulex_edge.errors import UsageError
from diffulex_edge.tests import toys

CONFIG = RecallConfig()
TINY = RecallConfig(keys=2, values=4, query_blocks=3, recall_steps=2, batch_size=4, seeds=(5, 1), asked_tables=16)


def drawn(n: int, config: RecallConfig = CONFIG, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Keys and values (n, K, keys) of n tables."""
    x = tables(n, config, torch.Generator().manual_seed(seed)).unflatten(1, (-1, config.keys, 2))
    return x[..., 0], x[..., 1]


class Reader:
    """Remembers the ids themselves; tells a hidden value by the first block it remembers, of nothing the first one."""

    spec = replace(toys.eco().spec, mask_id=MASK)

    def begin(self, kind: str, batch_size: int, length: int, first: Tensor | None = None) -> Any:
        return torch.zeros(batch_size, 0, dtype=torch.long)

    def __call__(self, block: Tensor, context: Any = None, *, rows: Tensor, **_: Any) -> Any:
        if not rows.numel():
            return None, torch.cat((context, block), 1)
        assert block[:, 1::2].eq(MASK).all()
        keys, told = block[:, ::2], torch.full_like(block[:, ::2], 1 + CONFIG.keys)
        if context.shape[1]:
            same = keys[:, :, None] == context[:, None, : block.shape[1] : 2]  # (B, keys, keys)
            told = (same * context[:, None, 1 : block.shape[1] : 2]).sum(2)
        return torch.nn.functional.one_hot(told.flatten(), 1 + CONFIG.keys + CONFIG.values).float(), context


READER: Any = Reader()


def test_each_block_holds_every_key_with_the_value_that_block_0_gives_it() -> None:
    keys, values = drawn(200)
    order = keys.argsort(-1)
    by_key = values.gather(-1, order)
    assert (keys.gather(-1, order) == torch.arange(1, 1 + CONFIG.keys)).all()
    assert (by_key == by_key[:, :1]).all()
    assert values.min() > CONFIG.keys
    assert values.max() == CONFIG.keys + CONFIG.values
    assert (keys[:, 1:] != keys[:, :1]).any(-1).float().mean() > 0.9  # 23 of 24 orders are another


def test_the_keys_of_a_block_say_nothing_of_its_values() -> None:
    """Chi-square of (order of the keys, value) in a query block: 24 x 8 cells as full as each other."""
    orders = torch.tensor(list(permutations(range(1, 1 + CONFIG.keys))))
    keys, values = drawn(20_000)
    for block in (0, 1, CONFIG.query_blocks):
        which = (keys[:, block, None] == orders).all(-1).long().argmax(-1)
        for place in range(CONFIG.keys):
            cells = which * CONFIG.values + values[:, block, place] - 1 - CONFIG.keys
            counts = cells.bincount(minlength=len(orders) * CONFIG.values).double()
            expected = counts.mean()
            freedom = len(counts) - 1
            assert ((counts - expected) ** 2 / expected).sum() < freedom + 5 * (2 * freedom) ** 0.5


def test_values_are_asked_for_with_the_memory_of_the_blocks_before_and_ablated_without() -> None:
    x = tables(1000, CONFIG, torch.Generator().manual_seed(1))
    assert value_accuracy(READER, x, CONFIG) == [1.0] * CONFIG.query_blocks
    assert value_accuracy(READER, x, CONFIG, ablated=True) == pytest.approx([1 / 8] * CONFIG.query_blocks, abs=0.03)


def test_a_model_that_learned_nothing_scores_about_chance() -> None:
    x = tables(256, CONFIG, torch.Generator().manual_seed(2))
    for ablated in (False, True):
        shares = [statistics.fmean(value_accuracy(learner(CONFIG, n), x, CONFIG, ablated=ablated)) for n in range(3)]
        assert statistics.fmean(shares) == pytest.approx(1 / 8, abs=0.03)


def test_a_run_gives_a_row_a_seed_and_the_same_again() -> None:
    result = recall(TINY)
    assert [row["seed"] for row in result["rows"]] == [5, 1]
    assert result["chance"] == 1 / 4
    assert "cpu" in result["environment"]
    for row in result["rows"]:
        assert len(row["accuracy_by_block"]) == 3
        assert row["accuracy"] == pytest.approx(sum(row["accuracy_by_block"]) / 3)
        assert 0 <= row["ablated_accuracy"] <= 1
        assert row["steps"] == 2
        assert row["cpu_seconds"] > 0
        row.pop("cpu_seconds")
    alone = recall(replace(TINY, seeds=(1,)))["rows"][0]
    assert {**result["rows"][1], "cpu_seconds": alone["cpu_seconds"]} == alone


def test_a_training_ends_when_enough_is_recalled() -> None:
    (row,) = recall(replace(TINY, seeds=(0,), recall_steps=CHECKED + 1, recall_enough=0.01))["rows"]
    assert row["steps"] == CHECKED


def test_the_flag_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = "--keys 2 --values 4 --query_blocks 1 --recall_steps 1 --batch_size 2 --seeds 3 --asked_tables 4"
    assert main(["bench", "--recall", *short.split(), "--threads", "1", "--json", str(tmp_path / "found.json")]) == 0
    assert "memory ablated" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["rows"][0]["seed"] == 3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"keys": 0}, "keys=0"),
        ({"recall_steps": 0}, "recall_steps=0"),
        ({"recall_enough": 0.0}, "recall_enough=0.0"),
        ({"values": 1}, "values=1"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (0, -1)}, "-1"),
        ({"lr": 0.0}, "lr=0.0"),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        RecallConfig(**wrong)


@pytest.mark.slow
def test_a_short_training_recalls_through_the_frozen_memory_and_not_without() -> None:
    easier = RecallConfig(keys=2, values=4, query_blocks=3, recall_steps=300, batch_size=64, seeds=(0,))
    (row,) = recall(easier)["rows"]
    assert min(row["accuracy_by_block"]) > 0.75  # to know both values, but not whose they are, gives 5/8
    assert row["ablated_accuracy"] == pytest.approx(1 / 4, abs=0.04)
