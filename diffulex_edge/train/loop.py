"""The training loop: one step after the other, checkpoints, and a way back from whatever goes wrong.

A step draws its data and its noise from (seed, step) alone, so resuming needs no generator state and is bitwise exact.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge import machine
from diffulex_edge.errors import DiffulexEdgeError, Interrupted, UsageError
from diffulex_edge.files import alone_in
from diffulex_edge.model import checkpoint
from diffulex_edge.model.families import build, family
from diffulex_edge.text.batches import Batches, read_meta
from diffulex_edge.train import parallel, state
from diffulex_edge.train.objective import Moment, Objective
from diffulex_edge.train.optim import Ema, learning_rate, optimizers, update
from diffulex_edge.train.recipe import Recipe, TrainConfig, resolve
from diffulex_edge.train.report import Reporter
from diffulex_edge.train.signals import Stop
from diffulex_edge.train.validate import validate

BAD_STEPS = 3  # non-finite steps in a row before the run goes back to its last checkpoint
ROLLBACKS = 3  # times it may do so


@dataclass
class Run:
    """A run in the making: what does not change from step to step, and the state that does."""

    config: TrainConfig
    recipe: Recipe
    batches: Batches
    tokenizer: dict[str, bytes]  # its files, read at the start: later they may be gone
    objective: Objective
    state: state.TrainState
    device: torch.device
    autocast: Any
    bad: int = 0  # non-finite steps in a row


def train(config: TrainConfig) -> dict[str, Any]:
    """Trains to the recipe's last step, or goes on with the run that output_dir holds; gives the outcome as a dict.

    Raises Interrupted, naming the checkpoint, on Ctrl-C and SIGTERM; UsageError where output_dir holds another run.
    """
    with parallel.group():
        run, main = start(config), parallel.is_main()
        progress = run.state.progress
        with _alone(config, main), Stop() as stop, Reporter(config.output_dir, run.recipe.max_steps, main) as reporter:
            while progress.step < run.recipe.max_steps:
                began = time.perf_counter()
                loss, norm = train_step(run)
                progress = run.state.progress  # a roll-back replaces it
                progress.seconds += time.perf_counter() - began
                last = progress.step == run.recipe.max_steps
                if progress.step % config.log_interval == 0 or last:
                    reporter.step(progress, loss, loss / math.log(2) / run.batches.chars_per_token, norm)
                if parallel.any_rank(stop.asked):
                    where = _save(run, reporter, validating=False)
                    raise Interrupted(f"stopped at step {progress.step}; the same command goes on from {where}")
                if progress.step % config.save_interval == 0 or last:
                    _save(run, reporter, validating=True)
        return {"output_dir": str(config.output_dir), **vars(progress), **reporter.last_validation}


@contextmanager
def _alone(config: TrainConfig, main: bool) -> Iterator[None]:
    """No other training in the folder; and with `overwrite` nothing of the run that it held."""
    with alone_in(config.output_dir, "training") if main else nullcontext():
        if main and config.overwrite:
            checkpoint.remove(checkpoint.steps(config.output_dir))
            (config.output_dir / "log.jsonl").unlink(missing_ok=True)
        yield


def start(config: TrainConfig) -> Run:
    """Builds a run, or restores the one that output_dir holds."""
    machine.keep_freed_memory()
    machine.set_threads(config.threads)
    torch.manual_seed(config.seed)
    held = None if config.overwrite else checkpoint.newest(config.output_dir)
    meta = read_meta(config.data_dir)
    recipe = resolve(config, vocab_size=int(meta["vocab_size"]), mask_id=int(meta["tokenizer"]["mask_id"]))
    batches = Batches(
        config.data_dir,
        "train",
        seq_len=recipe.seq_len,
        batch_size=recipe.batch_size,
        seed=config.seed,
        repeats=recipe.repeats,
    )
    device = parallel.own_device(machine.device(config.device))
    _need_memory(family(config.model), recipe, device)
    model = build(family(config.model), recipe.model)
    objective = Objective(recipe.objective, recipe.model.timesteps, model.spec)
    if held is None:
        _initial_weights(model, config, batches)
    model.to(device)
    dtype = machine.number_type(config.precision, device)
    live = state.TrainState(model, optimizers(model, recipe.optim, dtype), Ema(model, recipe.optim.ema_decay))
    if held is not None:
        _refuse_another_run(held, recipe, batches)
        state.load(held, live)
    if config.compile:
        for layer in model.layers:
            layer.compile()
    autocast = torch.autocast(device.type, dtype=dtype) if dtype != torch.float32 else nullcontext()
    return Run(config, recipe, batches, batches.tokenizer(), objective, live, device, autocast)


def _need_memory(model_type: str, recipe: Recipe, device: torch.device) -> None:
    """Weights, gradients, their average and two moments, in fp32."""
    with torch.device("meta"):
        n = sum(p.numel() for p in build(model_type, recipe.model).parameters())
    machine.need_memory(20.0 * n, f"training a model of {n / 1e6:,.0f} million parameters", device)


def _initial_weights(model: Any, config: TrainConfig, batches: Batches) -> None:
    if config.init is None:
        model.ends.set_unigram(batches.unigram_counts())
        return
    folder = checkpoint.find(Path(config.init))
    _, _, fingerprint = checkpoint.read_config(folder)
    if fingerprint != batches.tokenizer_fingerprint:
        raise UsageError(
            f"--init {config.init} speaks another vocabulary than {config.data_dir}: the tokenizers differ"
        )
    checkpoint.place_weights(model, folder)


def _refuse_another_run(held: Path, recipe: Recipe, batches: Batches) -> None:
    before, now = state.read_run(held), run_facts(recipe, batches)
    before["recipe"] = _completed(before["recipe"], _plain(asdict(Recipe(model=type(recipe.model)()))))
    for part in ("recipe", "data"):
        for name, value in now[part].items():
            if name != "max_steps" and before[part].get(name) != value:
                where, old, new = _difference(name, before[part].get(name), value)
                raise UsageError(
                    f"{held.parent} holds a run with another {where}: {old}, not {new}; "
                    "choose another --output_dir, or --overwrite it"
                )


def _difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The name and the values of the first thing that differs, down in the parts where both have it."""
    if isinstance(old, dict) and isinstance(new, dict) and set(old) == set(new):
        inner = next(key for key in new if old[key] != new[key])
        return _difference(inner, old[inner], new[inner])
    return name, old, new


def _completed(before: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What an older program wrote of its run: a field that is younger than the run had its default there."""
    return {
        name: {**value, **before.get(name, {})} if isinstance(value, dict) else before.get(name, value)
        for name, value in defaults.items()
    }


def run_facts(recipe: Recipe, batches: Batches) -> dict[str, Any]:
    """What makes two runs the same run; as it reads after a round trip through JSON."""
    facts = {"recipe": asdict(recipe), "data": {"sha256": batches.sha256, "tokenizer": batches.tokenizer_fingerprint}}
    return _plain(facts)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def train_step(run: Run) -> tuple[float, float]:
    """One update, or none where loss or gradient is not finite; gives loss (nats a token) and gradient norm."""
    live, recipe, progress = run.state, run.recipe, run.state.progress
    window = recipe.batch_size * recipe.seq_len * recipe.grad_accum
    total = 0.0
    for micro in range(recipe.grad_accum):
        total += _accumulate(run, micro)
    loss = parallel.mean(total)
    parallel.average_gradients(live.model)
    norm = float(nn.utils.clip_grad_norm_(live.model.parameters(), recipe.optim.grad_clip))
    if math.isfinite(loss) and math.isfinite(norm):
        update(live.optimizers, learning_rate(progress.step, recipe.max_steps, recipe.optim))
        live.ema.update(live.model)
        run.bad = 0
    else:
        progress.skipped += 1
        run.bad += 1
    live.model.zero_grad(set_to_none=True)
    progress.step += 1
    progress.tokens += window * parallel.world_size()
    if run.bad >= BAD_STEPS:
        _roll_back(run)
    return loss, norm


def _accumulate(run: Run, micro: int) -> float:
    """Adds the gradient of one micro-batch; gives its share of the window's loss."""
    live, recipe, progress = run.state, run.recipe, run.state.progress
    index = (progress.step * recipe.grad_accum + micro) * parallel.world_size() + parallel.rank()
    key = hash((run.config.seed, progress.rollbacks, index)) & (2**63 - 1)  # of integers: the same in every process
    moment = Moment(progress.step / recipe.max_steps, torch.Generator().manual_seed(key))
    with run.autocast:
        parts = run.objective(live.model, run.batches.batch(index).to(run.device), moment)
        maskable = sum(tokens for _, tokens in parts)
        loss = torch.stack([part for part, _ in parts]).sum() / (maskable * recipe.grad_accum)
    loss.backward()
    return float(loss.detach())


def _roll_back(run: Run) -> None:
    """Back to the last checkpoint, with other noise ahead; gives up after a few times."""
    rollbacks = run.state.progress.rollbacks + 1
    held = checkpoint.newest(run.config.output_dir)
    if held is None or rollbacks > ROLLBACKS:
        raise DiffulexEdgeError(
            f"loss or gradient was not finite {BAD_STEPS} times in a row, at step {run.state.progress.step}, after "
            f"{rollbacks - 1} roll-backs: lower --lr and --muon_lr, or start from an earlier checkpoint with --init"
        )
    skipped = run.state.progress.skipped
    state.load(held, run.state)
    run.state.progress.rollbacks, run.state.progress.skipped = rollbacks, skipped
    run.bad = 0


def _save(run: Run, reporter: Reporter, *, validating: bool) -> Path:
    """Validates, writes a checkpoint, checks it, and lets the oldest go."""
    progress = run.state.progress
    folder = run.config.output_dir / f"step-{progress.step:08d}"
    if not parallel.is_main():
        return folder
    if validating:
        with averaged(run.state):
            found = validate(run.state.model, run.config.data_dir, run.recipe.seq_len, run.objective.schedule)
            reporter.validation(progress, found)
    model = replace(
        run.recipe.model,
        trained_modes=run.objective.trained_modes,
        mask_schedule=run.recipe.objective.mask_schedule,
        sample_steps=run.recipe.sample_steps,
    )
    config = checkpoint.model_config(family(run.config.model), model, run.batches.tokenizer_fingerprint)
    facts = run_facts(run.recipe, run.batches)
    state.save(folder, run.state, config=config, run=facts, tokenizer=run.tokenizer)
    checkpoint.verify(folder)
    checkpoint.prune(run.config.output_dir, run.config.keep)
    return folder


@contextmanager
def averaged(live: state.TrainState) -> Iterator[None]:
    """The model with its averaged weights, for as long as the block lasts."""
    own = {name: p.detach().clone() for name, p in live.model.named_parameters()}
    _put(live.model, live.ema.weights)
    try:
        yield
    finally:
        _put(live.model, own)


@torch.no_grad()
def _put(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(values[name])
