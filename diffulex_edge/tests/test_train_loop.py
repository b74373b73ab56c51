"""A run: it learns, resumes bitwise, survives bad numbers and signals, and refuses what is not its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffulex_edge.api import load
from diffulex_edge.errors import ArtefactError, DiffulexEdgeError, Interrupted, ResourceError, UsageError
from diffulex_edge.files import alone_in, read_json
from diffulex_edge.model import checkpoint
from diffulex_edge.tests.test_text_tokenizer import make_hub_tokenizer
from diffulex_edge.text.prepare import PrepareConfig, prepare
from diffulex_edge.train import loop, signals
from diffulex_edge.train.loop import train
from diffulex_edge.train.recipe import TrainConfig
from diffulex_edge.train.report import Reporter
from diffulex_edge.train.state import Progress

SMALL: dict[str, Any] = {"d_model": 32, "n_heads": 2, "n_layers": 2, "d_ff": 32, "seq_len": 64}


@pytest.fixture
def tiny(demo_data: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        data_dir=demo_data,
        output_dir=tmp_path / "run",
        recipe="demo",
        **SMALL,
        batch_size=8,
        max_steps=12,
        save_interval=4,
        log_interval=1,
        threads=1,
        precision="fp32",
        full_only=0.25,
    )


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(run: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return checkpoint.read_tensors(checkpoint.find(run) / f"{name}.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_learns_and_leaves_checkpoints_and_a_log(tiny: TrainConfig) -> None:
    outcome = train(replace(tiny, max_steps=60, save_interval=30, keep=1, lr=0.02, full_only=1.0))
    lines = log(tiny.output_dir)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert outcome["step"] == 60 and outcome["val_bits_per_char"] > 0
    assert [path.name for path in checkpoint.steps(tiny.output_dir)] == ["step-00000060"]
    model, _ = checkpoint.load_model(tiny.output_dir)
    assert model.spec.trained_modes == ("full", "block", "block_frozen")


@pytest.mark.parametrize("cut", [1, 5, 10])
def test_a_resumed_run_equals_the_uninterrupted_one_bitwise(tiny: TrainConfig, cut: int, tmp_path: Path) -> None:
    train(tiny)
    halves = replace(tiny, output_dir=tmp_path / "halves")
    run = loop.start(halves)
    for _ in range(cut):
        loop.train_step(run)
    loop._save(run, loop.Reporter(halves.output_dir, 12, False), validating=False)
    train(halves)
    for name in ("model", "ema", "optimizer"):
        assert equal(weights(tiny.output_dir, name), weights(halves.output_dir, name))


def test_a_finished_run_that_is_started_again_changes_nothing(tiny: TrainConfig) -> None:
    train(tiny)
    before = weights(tiny.output_dir)
    assert train(tiny)["step"] == 12
    assert equal(weights(tiny.output_dir), before)


def test_accumulated_micro_batches_weigh_every_token_alike(tiny: TrainConfig) -> None:
    """Four micro-batches of 2 rows see as many tokens a step as one of 8, and the loss is on the same scale."""
    whole = loop.train_step(loop.start(replace(tiny, output_dir=tiny.output_dir / "a", full_only=1.0)))
    parts = loop.train_step(
        loop.start(replace(tiny, output_dir=tiny.output_dir / "b", full_only=1.0, batch_size=2, grad_accum=4))
    )
    assert parts[0] == pytest.approx(whole[0], rel=0.5)


def test_another_recipe_in_the_same_folder_is_refused(tiny: TrainConfig) -> None:
    train(tiny)
    with pytest.raises(UsageError, match="holds a run with another seq_len: 64, not 32"):
        train(replace(tiny, seq_len=32))
    with pytest.raises(UsageError, match="holds a run with another d_ff: 32, not 48"):
        train(replace(tiny, d_ff=48))
    assert train(replace(tiny, seq_len=32, overwrite=True, max_steps=2))["step"] == 2
    assert [line["step"] for line in log(tiny.output_dir) if "loss" in line] == [1, 2]


def test_a_checkpoint_says_how_it_is_meant_to_be_decoded(tiny: TrainConfig) -> None:
    train(replace(tiny, max_steps=1, sample_steps=5, mask_schedule="cosine"))
    model, folder = checkpoint.load_model(tiny.output_dir)
    assert (model.spec.sample_steps, model.spec.mask_schedule) == (5, "cosine")
    assert set(read_json(folder / "config.json")) == {"model_type", "model", "tokenizer_fingerprint"}
    train(replace(tiny, max_steps=1, model="backup", sample_steps=5, overwrite=True))
    assert checkpoint.load_model(tiny.output_dir)[0].spec.sample_steps == 5


def test_the_flags_of_memory_make_the_model_that_is_trained(tiny: TrainConfig) -> None:
    flags = {"memory_update": "accumulate", "memory_blocks": 2, "latent_self_cond": True}
    train(replace(tiny, max_steps=2, full_only=0.0, **flags))  # type: ignore[arg-type]
    model, _ = checkpoint.load_model(tiny.output_dir)
    slots = model.config.memory_slots
    assert model.begin("memory", 1, 8).layers[0].bank.shape[1] == 2 * slots and model.spec.carries
    train(replace(tiny, max_steps=1, memory_timescales=(1.0, 0.1), overwrite=True))
    assert checkpoint.load_model(tiny.output_dir)[0].config.memory_timescales == (1.0, 0.1)


def test_a_run_of_an_older_program_goes_on_where_its_missing_fields_had_their_defaults(tiny: TrainConfig) -> None:
    train(tiny)
    folder = checkpoint.find(tiny.output_dir)
    written = read_json(folder / "state.json")
    del written["run"]["recipe"]["model"]["sample_steps"], written["run"]["recipe"]["optim"]["ema_decay"]
    parts = {path.name: checkpoint.copy_of(path) for path in folder.iterdir() if path.name != "manifest.json"}
    older = tiny.output_dir.with_name("older") / folder.name
    checkpoint.write(older, {**parts, "state.json": checkpoint.document(written)})
    assert train(replace(tiny, output_dir=older.parent, max_steps=13))["step"] == 13
    del written["run"]["recipe"]["seq_len"]  # 256 by default, not this run's
    another = tiny.output_dir.with_name("another") / folder.name
    checkpoint.write(another, {**parts, "state.json": checkpoint.document(written)})
    with pytest.raises(UsageError, match="another seq_len: 256, not 64"):
        train(replace(tiny, output_dir=another.parent))


def test_two_trainings_do_not_share_a_folder(tiny: TrainConfig) -> None:
    train(replace(tiny, max_steps=1))
    with alone_in(tiny.output_dir, "training"), pytest.raises(ResourceError, match="another training is at work"):
        train(replace(tiny, max_steps=1, seq_len=32, overwrite=True))
    assert checkpoint.find(tiny.output_dir).name == "step-00000001", "the first one's work is still there"


def test_a_run_needs_its_tokenizer_at_the_start_and_never_again(tiny: TrainConfig, tmp_path: Path) -> None:
    shutil.copytree(tiny.data_dir.parent, tmp_path / "moved")
    moved = replace(tiny, data_dir=tmp_path / "moved" / tiny.data_dir.name)
    [words] = (tmp_path / "moved" / "tokenizer").glob("*.model")
    content, run = words.read_bytes(), loop.start(moved)
    words.unlink()
    loop.train_step(run)
    folder = loop._save(run, loop.Reporter(moved.output_dir, 12, False), validating=False)
    assert (folder / "tokenizer.model").read_bytes() == content
    with pytest.raises(ArtefactError, match=words.name):
        train(replace(moved, output_dir=tmp_path / "other"))


def test_a_checkpoint_takes_what_names_the_control_tokens_along(tiny: TrainConfig, tmp_path: Path) -> None:
    words = make_hub_tokenizer(tmp_path / "words" / "tokenizer.json", ("<|endoftext|>", "<|fill|>")).parent
    (words / "tokenizer_config.json").write_text(json.dumps({"mask_token": "<|fill|>"}))
    prepare(PrepareConfig(data_dir=tmp_path / "data", tokenizer=words, demo_documents=40))
    train(replace(tiny, data_dir=tmp_path / "data", max_steps=1))
    shutil.rmtree(words)
    model, tokenizer = load(tiny.output_dir)
    assert model.spec.mask_id == tokenizer.mask_id
    assert tokenizer.pieces([tokenizer.mask_id]) == ["<|fill|>"]


def test_the_log_is_json_whatever_the_numbers(tmp_path: Path) -> None:
    with Reporter(tmp_path, 3, True) as reporter:
        reporter.step(Progress(step=1), float("nan"), float("inf"), 2.0)
    [line] = log(tmp_path)
    assert (line["loss"], line["bits_per_char"], line["grad_norm"]) == (None, None, 2.0)


def test_a_full_disk_under_the_log_is_told_with_its_name(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
        with pytest.raises(ResourceError, match=r"log\.jsonl: File too large"):
            _log_lines(tmp_path, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _log_lines(folder: Path, n: int) -> None:
    with Reporter(folder, n, True) as reporter:
        for _ in range(n):
            reporter.step(Progress(step=1), 1.0, 1.0, 2.0)


def test_a_run_is_not_called_as_its_newest_checkpoint_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"latest\.pt"):
        TrainConfig(output_dir=tmp_path / "latest.pt")


@pytest.mark.parametrize(("name", "value"), [("warmup_steps", -1), ("seq_len", 1), ("seed", -1), ("seed", 2**63)])
def test_numbers_that_would_break_a_run_are_refused_before_it(tiny: TrainConfig, name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{name}={value}"):
        train(replace(tiny, **{name: value}))  # type: ignore[arg-type]
    assert not tiny.output_dir.exists()


def test_the_shortest_windows_train_in_every_mode(tiny: TrainConfig) -> None:
    assert train(replace(tiny, seq_len=2, full_only=0.0, max_steps=3))["step"] == 3


def test_more_steps_go_on_from_where_the_run_was(tiny: TrainConfig) -> None:
    train(tiny)
    assert train(replace(tiny, max_steps=14))["step"] == 14


def test_a_run_starts_from_given_weights(tiny: TrainConfig, tmp_path: Path) -> None:
    train(tiny)
    run = loop.start(replace(tiny, output_dir=tmp_path / "second", init=str(tiny.output_dir)))
    assert equal({k: v.detach() for k, v in run.state.model.named_parameters()}, weights(tiny.output_dir, "ema"))


def test_steps_that_are_not_finite_are_skipped_then_rolled_back_then_given_up(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = loop.start(tiny)
    for _ in range(4):
        loop.train_step(run)
    loop._save(run, loop.Reporter(tiny.output_dir, 12, False), validating=False)
    saved = weights(tiny.output_dir)
    sound = run.objective.__call__

    def broken(*arguments: object) -> list:
        return [(loss * float("nan"), tokens) for loss, tokens in sound(*arguments)]  # type: ignore[arg-type]

    run.objective = broken  # type: ignore[assignment]
    for _ in range(loop.BAD_STEPS):
        loop.train_step(run)
    progress = run.state.progress
    assert (progress.rollbacks, progress.skipped, progress.step) == (1, 3, 4)
    assert equal({k: v.detach() for k, v in run.state.model.named_parameters()}, saved)
    with pytest.raises(DiffulexEdgeError, match="not finite"):
        [loop.train_step(run) for _ in range(loop.BAD_STEPS * loop.ROLLBACKS)]
    assert all(torch.isfinite(v).all() for v in weights(tiny.output_dir).values())


def test_a_stop_leaves_a_checkpoint_that_the_same_command_goes_on_from(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.train_step

    def interrupted(run: loop.Run) -> tuple[float, float]:
        if run.state.progress.step == 6:
            signal.raise_signal(signal.SIGTERM)
        return step(run)

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(Interrupted, match="step-00000007"):
        train(tiny)
    monkeypatch.setattr(loop, "train_step", step)
    assert train(tiny)["step"] == 12


def test_the_second_signal_stops_at_once() -> None:
    with signals.Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that close")
def test_a_closed_terminal_asks_for_a_stop_unless_nohup_said_otherwise() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, heard in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
            signal.signal(signal.SIGHUP, handler)
            with signals.Stop() as stop:
                signal.raise_signal(signal.SIGHUP) if heard else None
                assert stop.asked is heard
                assert (signal.getsignal(signal.SIGHUP) == handler) is True
    finally:
        signal.signal(signal.SIGHUP, before)


def loopback() -> bool:
    """Whether this machine can talk to itself: in a network namespace of its own it cannot, even that is down."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.socket() as client:
            return client.connect_ex(server.getsockname()) == 0


@pytest.mark.slow
@pytest.mark.skipif(not loopback(), reason="torchrun's processes talk over the loopback device")
def test_two_processes_train_as_one_of_twice_the_batch(tiny: TrainConfig, tmp_path: Path) -> None:
    """Under torchrun with gloo: both ranks end with the same weights, and rank 0 alone writes."""
    out = tmp_path / "ddp"
    flags = {**SMALL, "data_dir": tiny.data_dir, "output_dir": out, "recipe": "demo", "batch_size": 4, "max_steps": 6}
    flags |= {"save_interval": 3, "log_interval": 1, "threads": 1, "precision": "fp32"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "diffulex_edge.cli.main"]
    command = [sys.executable, *launch, "train", *(f"--{name}={value}" for name, value in flags.items())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.name for path in checkpoint.steps(out)] == ["step-00000003", "step-00000006"]
    assert log(out)[0]["tokens"] % (2 * 4 * 64) == 0
