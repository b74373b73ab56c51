"""Does the frozen memory carry what is needed, and nothing else? Associative recall, learned from nothing in minutes.

A table of keys and values stands in block 0; each block after it is the same table in another order. Asked for are the
values of such a block, all hidden at once, their keys in sight. What a block shows of itself says nothing of its
values, so whatever is right beyond chance came through the memory. Zoology's MQAR, arXiv:2312.04927, made of blocks.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffulex_edge.bench.environment import environment
from diffulex_edge.bench.progress import Advance, bar
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import NONE, Denoiser
from diffulex_edge.model.eco_hybrid import EcoHybrid, EcoHybridConfig
from diffulex_edge.train.objective import Moment, Objective, ObjectiveConfig
from diffulex_edge.train.optim import OptimConfig, learning_rate, optimizers, update

MASK = 0  # then the keys, then the values
ASKED = 1 << 40  # the seed of the tables that are asked about: no seed of a training, and the same for all
CHECKED = 50  # updates between looks at how much of the batch just learned from is recalled


@dataclass(frozen=True, kw_only=True)
class RecallConfig:
    keys: int = 4  # of a table; a block is each of them with its value, two tokens
    values: int = 8  # that a key may have: chance is one in so many
    query_blocks: int = 5  # after the block that is remembered
    recall_steps: int = 2000  # updates of a training, at most
    recall_enough: float = 0.99  # share of values recalled at which a training ends before
    batch_size: int = 64  # tables an update
    lr: float = 3e-3  # peak learning rate of AdamW
    muon_lr: float = 0.02  # peak learning rate of Muon
    seeds: tuple[int, ...] = (0, 1, 2)  # one training each
    asked_tables: int = 512  # that the accuracy is measured on

    def __post_init__(self) -> None:
        if min(self.keys, self.query_blocks, self.recall_steps, self.batch_size, self.asked_tables) < 1:
            raise UsageError(
                f"{self.keys=}, {self.query_blocks=}, {self.recall_steps=}, {self.batch_size=} and "
                f"{self.asked_tables=} must be at least 1"
            )
        if self.values < 2:
            raise UsageError(f"values={self.values} must be at least 2: there is nothing to recall of one")
        if not 0 < self.recall_enough <= 1:
            raise UsageError(f"recall_enough={self.recall_enough} must be above 0 and at most 1")
        if not self.seeds or not 0 <= min(self.seeds) <= max(self.seeds) < ASKED:
            raise UsageError(f"seeds={self.seeds} needs at least one seed, each from 0 to below {ASKED}")
        self.optim()  # refuses a learning rate of nonsense

    def optim(self) -> OptimConfig:
        return OptimConfig(lr=self.lr, muon_lr=self.muon_lr)

    @property
    def block_size(self) -> int:
        return 2 * self.keys


def recall(config: RecallConfig = RecallConfig()) -> dict[str, Any]:
    """A row a seed: the share of values recalled through the frozen memory, by block, and through an empty one."""
    with bar("updates", len(config.seeds) * config.recall_steps) as advance:
        rows = [_row(config, seed, advance) for seed in config.seeds]
    about = {"chance": 1 / config.values, **asdict(config), "environment": environment(torch.float32)}
    return {"rows": rows, **about}


def tables(n: int, config: RecallConfig, generator: torch.Generator) -> Tensor:
    """n tables as texts (n, T): `k v k v ...` in block 0, and again, in an order of its own, in each block after."""
    values = torch.randint(config.values, (n, config.keys), generator=generator)
    blocks = []
    for _ in range(1 + config.query_blocks):
        order = torch.rand(n, config.keys, generator=generator).argsort(1)
        pairs = torch.stack((1 + order, 1 + config.keys + values.gather(1, order)), 2)  # (n, keys, 2)
        blocks.append(pairs.flatten(1))
    return torch.cat(blocks, 1)


def learner(config: RecallConfig, seed: int) -> EcoHybrid:
    """An EcoHybrid of two layers, its weights drawn by the seed; it has twice as many slots as a table has keys.

    Its convolution is as wide as a pair and its neighbours: a wider one mixes in the keys of other pairs, and then it
    hangs on the seed whether a value ever finds its own.
    """
    sizes = EcoHybridConfig(
        vocab_size=1 + config.keys + config.values,
        mask_id=MASK,
        d_model=64,
        n_layers=2,
        head_dim=16,
        d_ff=128,
        memory_slots=2 * config.keys,
        conv_kernel=3,
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return EcoHybrid(sizes)


@torch.no_grad()
def value_accuracy(model: Denoiser, x: Tensor, config: RecallConfig, *, ablated: bool = False) -> list[float]:
    """The share of right values in each query block of x (B, T), given the memory of the blocks before.

    The likeliest value counts, whatever a key or the mask would have: so a guess is right by chance as often as there
    are values. ablated: given the memory of nothing.
    """
    first, *queries = x.split(config.block_size, 1)
    empty = model.begin("memory", len(x), x.shape[1])
    _, context = model(first, empty, rows=NONE)
    shares = []
    for block in queries:
        hidden = torch.zeros_like(block, dtype=torch.bool)
        hidden[:, 1::2] = True
        logits, _ = model(block.masked_fill(hidden, MASK), empty if ablated else context, rows=hidden)
        guess = 1 + config.keys + logits[:, 1 + config.keys :].argmax(-1)  # (n,)
        shares.append(float((guess == block[hidden]).double().mean()))
        _, context = model(block, context, rows=NONE)
    return shares


def _row(config: RecallConfig, seed: int, advance: Advance) -> dict[str, Any]:
    began, model = time.process_time(), learner(config, seed)
    steps, loss = _train(model, config, seed, advance)
    asked = tables(config.asked_tables, config, torch.Generator().manual_seed(ASKED))
    by_block = value_accuracy(model, asked, config)
    return {
        "seed": seed,
        "accuracy_by_block": by_block,
        "accuracy": statistics.fmean(by_block),
        "ablated_accuracy": statistics.fmean(value_accuracy(model, asked, config, ablated=True)),
        "loss": loss,  # nats a token, of the last update
        "steps": steps,
        "cpu_seconds": time.process_time() - began,
    }


def _train(model: EcoHybrid, config: RecallConfig, seed: int, advance: Advance) -> tuple[int, float]:
    """Every row a chain of frozen blocks; all else that the objective knows is left out. Gives steps and last loss."""
    frozen = ObjectiveConfig(
        full_share=0,
        block_share=0,
        frozen_share=1,
        full_only=0,
        block_sizes=(config.block_size,),
        detach_every=2,
        own_context=0,
        shallow=0,
    )
    objective, optim = Objective(frozen, None, model.spec), config.optim()
    made, generator = optimizers(model, optim), torch.Generator().manual_seed(seed)
    for step in range(config.recall_steps):
        x = tables(config.batch_size, config, generator)
        parts = objective(model, x, Moment(step / config.recall_steps, generator))
        loss = torch.stack([part for part, _ in parts]).sum() / sum(tokens for _, tokens in parts)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), optim.grad_clip)
        update(made, learning_rate(step, config.recall_steps, optim))
        model.zero_grad(set_to_none=True)
        advance(1)
        if (step + 1) % CHECKED == 0 and statistics.fmean(value_accuracy(model, x, config)) >= config.recall_enough:
            break
    advance(config.recall_steps - step - 1)
    return step + 1, float(loss.detach())
