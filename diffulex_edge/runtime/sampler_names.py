"""Seed 003's names of sampling strategies: each makes a sampler of sampler.py. Chance comes from the plan's seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.sampler import Categorical, Greedy, Sampler


def GreedySampler() -> Sampler:
    return Greedy()


def TopKSampler(k: int = 50, temperature: float = 1.0) -> Sampler:
    """Draws from the k likeliest tokens."""
    return Categorical(temperature=temperature, top_k=k)


def TopPSampler(p: float = 0.9, temperature: float = 1.0) -> Sampler:
    """Draws from the likeliest tokens that together have the probability p; from one at least."""
    return Categorical(temperature=temperature, top_p=p)


def TemperatureSampler(temperature: float = 1.0) -> Sampler:
    return Categorical(temperature=temperature)


STRATEGIES: dict[str, Callable[..., Sampler]] = {
    "greedy": GreedySampler,
    "top_k": TopKSampler,
    "top_p": TopPSampler,
    "temperature": TemperatureSampler,
}


def get_sampler(strategy: str = "greedy", **options: Any) -> Sampler:
    """The sampler of a strategy's name, with the options that its constructor takes."""
    if strategy not in STRATEGIES:
        raise UsageError(f"sampling {strategy=} is not one of {', '.join(STRATEGIES)}")
    return STRATEGIES[strategy](**options)
