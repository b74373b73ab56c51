"""Agreement with one token a step: whole where nothing hangs on order, and less where it does."""

from __future__ import annotations

import pytest

from diffulex_edge.bench.agreement import AgreementConfig, agreement
from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.tests import toys

TEXT = [toys.ids(1, 40, seed=n)[0].tolist() for n in (1, 2)]
FEW = AgreementConfig(thresholds=(0.0, 0.3, 1.0), agreement_blocks=5, agreement_prompt=8)


def test_the_higher_the_threshold_the_more_forwards_and_the_same_text_at_one() -> None:
    result = agreement(toys.backup(), TEXT, Plan(context="canvas", block_size=8), FEW)
    low, middle, high = result["rows"]
    assert result["blocks"] == 5
    assert low["tokens_per_forward"] == 8
    assert low["tokens_per_forward"] >= middle["tokens_per_forward"] >= high["tokens_per_forward"] == 1
    assert high["agreement"] == 1
    assert low["agreement"] < 1


def test_a_text_shorter_than_the_prompt_is_refused() -> None:
    with pytest.raises(UsageError, match="64 tokens"):
        agreement(toys.backup(), TEXT, Plan(context="canvas"))
