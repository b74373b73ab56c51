"""kill -9 at random moments of checkpoint writes: no run is lost. The naive torch.save stands beside it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffulex_edge.errors import ArtefactError
from diffulex_edge.model import checkpoint
from diffulex_edge.tests import toys
from diffulex_edge.tests.test_model_checkpoint import publish

TRIALS = 200


def killed_while(write: Callable[[int], None], delay: float) -> None:
    """Runs write(1), write(2), ... in a child and kills it after the delay, counted from the end of the first."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write(1)
            os.write(writer, b".")
            for step in range(2, 10_000):
                write(step)
        finally:
            os._exit(0)
    os.read(reader, 1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)


@pytest.mark.slow
def test_no_run_is_unrecoverable_after_kill_9(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, lost, naive_lost = random.Random(0), 0, 0
    weights = dict(toys.eco().named_parameters())
    for trial in range(TRIALS):
        run, naive = tmp_path / f"run{trial}", tmp_path / f"naive{trial}.pt"

        def ours(step: int, run: Path = run) -> None:
            publish(run / f"step-{step:08d}", seed=step)
            checkpoint.prune(run, 2)

        killed_while(ours, rng.random() * 0.03)
        try:
            checkpoint.load_model(run)
        except ArtefactError:
            lost += 1

        def naively(step: int, naive: Path = naive) -> None:
            torch.save(weights, naive)

        killed_while(naively, rng.random() * 0.03)
        try:
            torch.load(naive, weights_only=True)
        except Exception:
            naive_lost += 1
    with capsys.disabled():
        print(f"\nkill -9 during {TRIALS} writes: unrecoverable {lost}; naive torch.save: {naive_lost}")
    assert lost == 0
    assert naive_lost > 0
