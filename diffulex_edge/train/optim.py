"""Optimisers: Muon for the hidden matrices, AdamW for the rest, one learning-rate curve, one gradient clip, EMA.

Muon is written here because torch.optim.Muon orthogonalises in bf16 whatever the processor: without bf16 units that
is 100 times slower than fp32, with them 4 times faster. And matrices of one shape go through one batched product.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffulex_edge.errors import UsageError

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """About the nearest semi-orthogonal matrices to g (n, rows, columns), by Newton-Schulz; Muon, arXiv:2502.16982."""
    a, b, c = NEWTON_SCHULZ
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised in `dtype`; steps scaled by sqrt(max(1, rows / columns)). For matrices only."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype
        if any(p.ndim != 2 for group in self.param_groups for p in group["params"]):
            raise UsageError("Muon takes matrices only: give vectors and embeddings to AdamW")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[tuple(p.shape)].append(p)
            for shape, params in shapes.items():
                self._step_shape(params, group, max(1.0, shape[0] / shape[1]) ** 0.5)

    def _step_shape(self, params: list[Tensor], group: dict, scale: float) -> None:
        directions = []
        for p in params:
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            assert p.grad is not None
            momentum.lerp_(p.grad, 1 - group["momentum"])
            directions.append(p.grad.lerp(momentum, group["momentum"]))
        for p, update in zip(params, orthogonalise(torch.stack(directions).to(self.dtype)), strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    optimizer: str = "muon"  # muon: Muon for hidden matrices and AdamW for the rest; adamw: AdamW for all
    lr: float = 2e-3  # peak learning rate of AdamW
    muon_lr: float = 0.02  # peak learning rate of Muon
    weight_decay: float = 0.05  # on matrices only
    warmup_steps: int = 100  # linear rise to the peak
    decay_fraction: float = 0.25  # of all steps: linear fall to zero at the end (warm-up, stable, decay)
    grad_clip: float = 1.0  # norm of the whole gradient, at most
    ema_decay: float = (
        0.99  # of the averaged weights that are evaluated and shipped; its memory is 1 / (1 - decay) steps
    )

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"optimizer={self.optimizer!r} is not one of {', '.join(OPTIMIZERS)}")
        for name in ("lr", "muon_lr", "grad_clip"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name}={getattr(self, name)} must not be negative")
        for name in ("decay_fraction", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}={getattr(self, name)} is not between 0 and 1")


def optimizers(
    model: nn.Module, config: OptimConfig, dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """The optimisers of a denoiser's parameters, each parameter in exactly one. dtype: the one that is trained in."""
    hidden = [m.weight for m in model.layers.modules() if isinstance(m, nn.Linear)]  # type: ignore[union-attr, attr-defined]
    inside = {id(p) for p in hidden}
    return OPTIMIZERS[config.optimizer](hidden, [p for p in model.parameters() if id(p) not in inside], config, dtype)


def _adamw(
    hidden: list[Tensor], rest: list[Tensor], config: OptimConfig, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    groups = [
        {"params": hidden + [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)]


def _muon(
    hidden: list[Tensor], rest: list[Tensor], config: OptimConfig, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    muon = Muon(hidden, lr=config.muon_lr, weight_decay=config.weight_decay, dtype=dtype)
    return [muon, *_adamw([], rest, config, dtype)]


OPTIMIZERS = {"muon": _muon, "adamw": _adamw}


def learning_rate(step: int, max_steps: int, config: OptimConfig) -> float:
    """The share of the peak at a step: warm-up, stable, decay (WSD, arXiv:2404.06395)."""
    warmup = min(config.warmup_steps, max_steps // 10)
    decay = max(1, round(max_steps * config.decay_fraction))
    return min(1.0, (step + 1) / (warmup + 1), (max_steps - step) / decay)


def update(optimizers: Iterable[torch.optim.Optimizer], share: float) -> None:
    """One step of each optimiser, at a share of its peak learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("peak_lr", group["lr"]) * share
        optimizer.step()


class Ema:
    """An exponential average of the weights, with bias-free warm-up: decay = min(ema_decay, (1 + n) / (10 + n))."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in model.parameters()], 1 - decay)
