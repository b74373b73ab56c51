"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile("here", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")  # a busy machine must not fail a test
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers have it from the process that starts them
    _RUN = tempfile.TemporaryDirectory(prefix="diffulex-tests-")
    os.environ["DIFFULEX_TESTS"] = _RUN.name
    os.environ["DIFFULEX_HOME"] = str(Path(_RUN.name) / "home")  # of nobody: what somebody tuned is not obeyed
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with it ignored


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `prepare` writes of the generated corpus with a vocabulary of 512, at most; the tokenizer lies beside it."""
    from diffulex_edge.text.prepare import PrepareConfig, prepare

    root = tmp_path_factory.mktemp("demo")
    prepare(
        PrepareConfig(
            source=("demo",),
            data_dir=root / "processed",
            tokenizer=root / "tokenizer" / "aria_hindi.model",
            vocab_size=512,
            demo_documents=200,
        )
    )
    return root / "processed"


@dataclass(frozen=True)
class TinyRun:
    """A run of three steps: it loads and decodes like any other, and has nothing to say."""

    data: Path
    tokenizer: Path
    run: Path


@pytest.fixture(scope="session")
def tiny_run(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Trained by the command line itself."""
    from diffulex_edge.cli.main import main

    run = tmp_path_factory.mktemp("tiny") / "run"
    size = "--d_model 32 --n_layers 2 --n_heads 2 --d_ff 32 --memory_slots 4 --seq_len 64 --batch_size 4"
    steps = "--max_steps 3 --save_interval 3 --threads 1 --precision fp32"
    where = ["--data_dir", str(demo_data), "--output_dir", str(run)]
    assert main(["train", "--recipe", "demo", *size.split(), *steps.split(), *where]) == 0
    return TinyRun(demo_data, demo_data.parent / "tokenizer" / "aria_hindi.model", run)
