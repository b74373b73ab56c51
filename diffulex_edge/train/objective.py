"""What a training step asks of the model: full, block and frozen-block denoising, mixed row by row, with a curriculum.

A checkpoint must serve three decoding modes, so it is trained for all three (block training of BD3-LM,
arXiv:2503.09573, with the clean stream replaced by a recurrence over memory). All randomness comes from a generator
made of (seed, step, micro, rank), so a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffulex_edge.diffusion.corruption import Corrupted, corrupt, discrete_times, permuted_strata
from diffulex_edge.diffusion.loss import divergence, masked_loss, mean_weight, nelbo_weight
from diffulex_edge.diffusion.schedule import SCHEDULES, NoiseSchedule
from diffulex_edge.errors import UsageError
from diffulex_edge.model.autoregressive import next_token_logits
from diffulex_edge.model.base import NONE, Context, Denoiser, DenoiserSpec
from diffulex_edge.model.context import LayerMemory, MemoryContext, join
from diffulex_edge.model.soft_exit import Thinned


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    mask_schedule: str = "linear"  # linear: the NELBO; cosine: seed 002's mean masked cross entropy
    full_share: float = 0.5  # of the rows: the whole sequence is noised (mode full)
    block_share: float = 0.1  # of the rows: clean text, then one noisy block (mode block)
    frozen_share: float = (
        0.4  # of the rows: noisy blocks, each against the memory of the text before it (mode block_frozen)
    )
    full_only: float = 0.4  # of all steps, at first: full denoising alone
    block_sizes: tuple[int, ...] = (16, 32, 64, 96)  # tokens; one is drawn a step
    detach_every: int = 2  # blocks through which the gradient of memory flows
    forget_bank: float = 0.1  # of the blocks: memory is replaced by the empty one
    forget_halo: float = 0.1  # of the blocks: the local mixing gets no left neighbour
    own_context: float = (
        0.25  # of the rows, in the last fifth of the steps: memory is written from the model's own tokens
    )
    shallow: float = (
        0.15  # of full rows, and of the steps of frozen ones: an exit at a random depth, where noise is high
    )
    shallow_weight: float = 0.3  # of the loss at an early exit
    min_depth: int = 2  # layers; the earliest exit that is trained
    exit_share: float = 0.0  # of the steps: layers after a random one are thinned out or left out too, for SEDAC
    exit_weight: float = 1.0  # of the divergence of what these predict from what all of the layers do
    exit_keeps: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)  # shares of the channels that may be left; 0: no layer is

    def __post_init__(self) -> None:
        if self.mask_schedule not in OBJECTIVES:
            raise UsageError(f"mask_schedule={self.mask_schedule!r} is not one of {', '.join(OBJECTIVES)}")
        shares = (self.full_share, self.block_share, self.frozen_share)
        if min(shares) < 0 or not sum(shares) > 0:
            raise UsageError(f"{shares=} of full, block and frozen rows must not be negative, nor all zero")
        if not self.block_sizes or min(self.block_sizes) < 1:
            raise UsageError(f"block_sizes={self.block_sizes} needs sizes of at least 1")
        if not self.exit_keeps or any(not 0 <= keep < 1 for keep in self.exit_keeps):
            raise UsageError(f"exit_keeps={self.exit_keeps} needs shares of at least 0 and below 1")
        for name in ("full_only", "forget_bank", "forget_halo", "own_context", "shallow", "exit_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}={getattr(self, name)} is not between 0 and 1")


Weight = Callable[[Corrupted, NoiseSchedule], Tensor]
OBJECTIVES: dict[str, tuple[NoiseSchedule, Weight]] = {
    "linear": (SCHEDULES["linear"], nelbo_weight),
    "cosine": (SCHEDULES["cosine"], mean_weight),
}


@dataclass(frozen=True)
class Moment:
    """Where in the run a micro-batch stands."""

    progress: float  # share of the steps done
    generator: torch.Generator


Task = Callable[[Denoiser, Tensor, Moment], tuple[Tensor, int]]  # -> (summed loss, number of maskable tokens)


class Objective:
    """Calls a denoiser on a batch x (B, T) and gives the summed loss and the number of maskable tokens."""

    def __init__(self, config: ObjectiveConfig, timesteps: int | None, spec: DenoiserSpec) -> None:
        self.config, self.timesteps, self.spec = config, timesteps, spec
        self.schedule, self.weight = OBJECTIVES[config.mask_schedule]
        self.frozen_share = config.frozen_share if "memory" in spec.contexts else 0.0

    @property
    def trained_modes(self) -> tuple[str, ...]:
        if self.spec.autoregressive:
            return ()
        shares = {"full": self.config.full_share, "block": self.config.block_share, "block_frozen": self.frozen_share}
        return tuple(mode for mode, share in shares.items() if share)

    def __call__(self, model: Denoiser, x: Tensor, moment: Moment) -> list[tuple[Tensor, int]]:
        """One (loss, maskable tokens) for each part of the batch; the caller divides by the tokens of the window."""
        if self.spec.autoregressive:
            return [(next_token_loss(model, x), x.numel())]
        parts = []
        for task, rows in zip(self._tasks(), self._allot(len(x), moment), strict=True):
            if rows:
                parts.append(task(model, x[:rows], moment))
                x = x[rows:]
        return parts

    def _tasks(self) -> tuple[Task, ...]:
        return (self._full, self._shallow, self._block, self._frozen)

    def _allot(self, rows: int, moment: Moment) -> list[int]:
        """Whole rows for each task: cumulative shares, rounded with one random offset, so each is right on average."""
        c = self.config
        shares = [c.full_share * (1 - c.shallow), c.full_share * c.shallow, c.block_share, self.frozen_share]
        if moment.progress < c.full_only and c.full_share:
            shares[2:] = [0.0, 0.0]
        edges = torch.tensor([0.0, *shares], dtype=torch.float64).cumsum(0)
        offset = torch.rand(1, generator=moment.generator, dtype=torch.float64)
        edges = (edges / edges[-1] * rows + offset).floor().long()
        edges[0], edges[-1] = 0, rows
        return edges.diff().tolist()

    def _times(self, n: int, generator: torch.Generator) -> Tensor:
        return discrete_times(n, self.timesteps, generator) if self.timesteps else permuted_strata(n, generator)

    def _noise(self, x: Tensor, t: Tensor, mask_id: int, generator: torch.Generator) -> Corrupted:
        return corrupt(x, self.schedule, mask_id, t=t, generator=generator)

    def _loss(self, logits: Tensor, x: Tensor, noised: Corrupted, mask_id: int) -> Tensor:
        return masked_loss(logits, x[noised.masked], self.weight(noised, self.schedule), mask_id)

    def _full(self, model: Denoiser, x: Tensor, moment: Moment) -> tuple[Tensor, int]:
        mask_id, g = model.spec.mask_id, moment.generator
        noised = self._noise(x, self._times(len(x), g), mask_id, g)
        return self._looked(model, x, noised, None, None, moment), x.numel()

    def _shallow(self, model: Denoiser, x: Tensor, moment: Moment) -> tuple[Tensor, int]:
        """LayerSkip, arXiv:2404.16710: early exits share the final norm and head; only where noise is high."""
        mask_id, g = model.spec.mask_id, moment.generator
        noised = self._noise(x, 0.5 + 0.5 * self._times(len(x), g), mask_id, g)
        logits, _ = model(noised.xt, t=noised.t, rows=noised.masked, depth=self._depth(model, g))
        return self._loss(logits, x, noised, mask_id) * self.config.shallow_weight, x.numel()

    def _block(self, model: Denoiser, x: Tensor, moment: Moment) -> tuple[Tensor, int]:
        mask_id, g = model.spec.mask_id, moment.generator
        size = self._block_size(x.shape[1] // 2, g)
        start = int(torch.randint(size, x.shape[1] - size + 1, (1,), generator=g))
        _, context = model(x[:, :start], model.begin("full", len(x), x.shape[1]), rows=NONE)
        block = x[:, start : start + size]
        noised = self._noise(block, self._times(len(x), g), mask_id, g)
        logits, _ = model(noised.xt, context, t=noised.t, rows=noised.masked)
        return self._loss(logits, block, noised, mask_id), block.numel()

    def _frozen(self, model: Denoiser, x: Tensor, moment: Moment) -> tuple[Tensor, int]:
        """All blocks denoised at once, each against the memory that a clean pass wrote of the blocks before it."""
        c, mask_id, g = self.config, model.spec.mask_id, moment.generator
        size = self._block_size(x.shape[1] // 2, g)
        n_blocks = self._n_blocks(x.shape[1] // size, moment.progress)
        x = x[:, : x.shape[1] // (size * n_blocks) * size * n_blocks].reshape(-1, n_blocks * size)
        blocks = x.unflatten(1, (n_blocks, size))  # (b, K, L)
        context = model.begin("memory", len(x), x.shape[1])
        assert isinstance(context, MemoryContext)
        start, contexts = context, []
        for k in range(n_blocks):
            if k and k % c.detach_every == 0:
                context = context.detach()
            contexts.append(context)
            if k + 1 < n_blocks:
                clean = self._own(model, blocks[:, k], context, moment)
                _, seen = model(clean, context, rows=NONE)
                assert isinstance(seen, MemoryContext)
                context = seen
        flat = blocks.flatten(0, 1)  # (b K, L)
        exits = bool(torch.rand(1, generator=g) < c.shallow)
        times = self._times(len(flat), g)
        noised = self._noise(flat, 0.5 + 0.5 * times if exits else times, mask_id, g)
        folded = forget(join(contexts), start, c.forget_bank, c.forget_halo, g)
        depth = self._depth(model, g) if exits else None
        folded = self._after_a_step(model, noised, folded, depth, g)
        weight = c.shallow_weight if exits else 1.0
        return self._looked(model, flat, noised, folded, depth, moment) * weight, flat.numel()

    def _looked(
        self,
        model: Denoiser,
        x: Tensor,
        noised: Corrupted,
        context: Context | None,
        depth: int | None,
        moment: Moment,
    ) -> Tensor:
        """The loss of a look; at whole depth sometimes with how far a look that exits early is from it.

        Self-distillation: KL(whole || early) at the weights of the loss, through the shared head of LayerSkip,
        arXiv:2404.16710, and nested channels of MatFormer, arXiv:2310.07707. The whole look is not drawn to the early.
        """
        c, g, mask_id = self.config, moment.generator, model.spec.mask_id
        logits, _ = model(noised.xt, context, t=noised.t, rows=noised.masked, depth=depth)
        if depth is not None or not c.exit_share or torch.rand(1, generator=g) >= c.exit_share:
            return self._loss(logits, x, noised, mask_id)
        aim = logits.detach().clone()  # the loss overwrites logits
        loss = self._loss(logits, x, noised, mask_id)
        n = model.spec.n_layers
        layer = int(torch.randint(min(c.min_depth, n - 1), n, (1,), generator=g)) - 1  # the last whole one
        keep = c.exit_keeps[int(torch.randint(len(c.exit_keeps), (1,), generator=g))]
        early, _ = model(noised.xt, context, t=noised.t, rows=noised.masked, exit=Thinned(layer, keep))
        weight = self.weight(noised, self.schedule)
        return loss + c.exit_weight * divergence(aim, early, weight, mask_id)

    @torch.no_grad()
    def _after_a_step(
        self, model: Denoiser, noised: Corrupted, context: MemoryContext, depth: int | None, generator: torch.Generator
    ) -> MemoryContext:
        """Half of the time, for a model that carries: as if a step had looked at this noise already. RIN's training."""
        if not self.spec.carries or torch.rand(1, generator=generator) < 0.5:
            return context
        no_logits = torch.zeros_like(noised.masked)
        _, seen = model(noised.xt, context, t=noised.t, rows=no_logits, depth=depth)
        return context.refresh(seen)

    def _depth(self, model: Denoiser, generator: torch.Generator) -> int:
        low = min(self.config.min_depth, model.spec.n_layers)
        return int(torch.randint(low, model.spec.n_layers + 1, (1,), generator=generator))

    @torch.no_grad()
    def _own(self, model: Denoiser, block: Tensor, context: MemoryContext, moment: Moment) -> Tensor:
        """In the last fifth of the run some rows are remembered as the model itself would have written them."""
        g, mask_id = moment.generator, model.spec.mask_id
        if moment.progress < 0.8 or not self.config.own_context:
            return block
        chosen = (torch.rand(len(block), generator=g) < self.config.own_context).to(block.device)
        noised = self._noise(block, 0.5 + 0.5 * self._times(len(block), g), mask_id, g)
        hidden = noised.masked & chosen[:, None]
        if not hidden.any():
            return block
        logits, _ = model(torch.where(chosen[:, None], noised.xt, block), context, t=noised.t, rows=hidden)
        logits[:, mask_id] = -torch.inf
        return block.masked_scatter(hidden, logits.argmax(-1))

    def _block_size(self, largest: int, generator: torch.Generator) -> int:
        fitting = [size for size in self.config.block_sizes if size <= largest] or [max(1, largest)]
        return fitting[int(torch.randint(len(fitting), (1,), generator=generator))]

    def _n_blocks(self, most: int, progress: float) -> int:
        """Curriculum over the rest of the run: chains of 2, then 4, then 8 blocks, then all there are."""
        done = (progress - self.config.full_only) / max(1e-9, 1 - self.config.full_only)
        return min(most, 2 if done < 0.15 else 4 if done < 0.3 else 8 if done < 0.6 else most)


def next_token_loss(model: Denoiser, x: Tensor) -> Tensor:
    """The NELBO of blocks of one token, summed: every token of x (B, T) given all before it, of weight 1."""
    logits = next_token_logits(model, x).flatten(0, 1)
    return masked_loss(logits, x.flatten(), logits.new_ones(len(logits)), model.spec.mask_id)


def forget(
    context: MemoryContext, start: MemoryContext, bank: float, halo: float, generator: torch.Generator
) -> MemoryContext:
    """Context dropout: a share of the rows gets the empty bank, another no halo; so that neither is leaned on alone."""
    rows, device = len(context.seen), context.seen.device
    no_bank = (torch.rand(rows, generator=generator) < bank)[:, None, None].to(device)
    no_halo = (torch.rand(rows, generator=generator) < halo).to(device)
    layers = tuple(
        LayerMemory(torch.where(no_bank, empty.bank[:1], m.bank), m.halo.masked_fill(no_halo[:, None, None], 0.0))
        for m, empty in zip(context.layers, start.layers, strict=True)
    )
    return MemoryContext(layers, context.seen.masked_fill(no_halo, 0))
