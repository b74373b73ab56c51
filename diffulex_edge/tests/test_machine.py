"""How many threads: as told, or as many as are faster now. Which device: as told, or a GPU where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from diffulex_edge import machine
from diffulex_edge.errors import UsageError


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("alone", "together", "chosen"), [(1.0, 2.0, 4), (2.0, 1.0, 1)])
def test_the_faster_number_of_threads_is_taken(
    alone: float, together: float, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    rates = {1: alone, 4: together}
    monkeypatch.setattr(machine, "gemm_rate", lambda *_, **__: rates[torch.get_num_threads()])
    assert machine.set_threads(None) == chosen
    assert torch.get_num_threads() == chosen


def test_a_number_that_is_told_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gemm_rate", lambda *_, **__: pytest.fail("measured"))
    assert machine.set_threads(2) == 2
    with pytest.raises(UsageError, match="threads=0"):
        machine.set_threads(0)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "cpu:0x"])
def test_a_device_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"device '{name}' is not one of auto, cpu, cuda, cuda:N"):
        machine.device(name)


def test_a_gpu_that_is_not_there_is_refused_and_auto_does_without() -> None:
    with pytest.raises(UsageError, match=rf"PyTorch sees {torch.cuda.device_count()} GPUs"):
        machine.device(f"cuda:{torch.cuda.device_count()}")
    assert (machine.device("auto").type == "cuda") is torch.cuda.is_available()
