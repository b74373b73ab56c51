"""`DiffusionEngine`: prompt in, prompt and continuation out. Seed 003's engine as a thin object over `decode`.

The names of its older building blocks can be had here as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.decode import Committed, decode, finish
from diffulex_edge.runtime.diffusion_blocks import DiffusionBlock as DiffusionBlock
from diffulex_edge.runtime.diffusion_blocks import DiffusionBlockManager as DiffusionBlockManager
from diffulex_edge.runtime.diffusion_sampler import DiffusionSampler as DiffusionSampler
from diffulex_edge.runtime.diffusion_sampler import SampleOutput as SampleOutput
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.requests import (
    Prompt,
    best_context,
    end_ids,
    fitting_block,
    one_prompt,
    open_model,
    prompt_rows,
)
from diffulex_edge.runtime.reveal import RevealAbove
from diffulex_edge.runtime.sampler import choose_sampler


@dataclass(frozen=True, kw_only=True)
class DiffusionGenerationConfig:
    """How to denoise. An id that is None is the model's own; its spec may name no end of text."""

    max_new_tokens: int = 100
    num_iterations: int = 10  # reverse steps a block, at most; however few, each block is finished by its last
    block_size: int = 10  # tokens; rounded up to whole blocks of a block-causal model; a program has its own
    confidence_threshold: float = 0.95  # what is at least so probable is shown at once, beside the step's quota
    temperature: float = 1.0  # 0: the likeliest token
    top_k: int = 0  # tokens drawn from; 0: all
    top_p: float = 1.0  # probability mass drawn from; 1: all
    mask_token_id: int | None = None  # another than the model's is refused
    eos_token_id: int | None = None
    early_stop: bool = True  # a row ends behind its end of text; False: always max_new_tokens
    seed: int = 0  # the same seed gives the same text


class DiffusionEngine:
    """Denoises continuations with one model, in the best of its contexts."""

    def __init__(
        self,
        model: Denoiser | None = None,
        *,
        pte_path: str | Path | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """device: where the model is put; None: where it is."""
        self.model, self.device = open_model(model, pte_path, device)

    @classmethod
    def from_model(cls, model: Denoiser, device: torch.device | str | None = None) -> Self:
        return cls(model, device=device)

    @classmethod
    def from_pte(cls, pte_path: str | Path, device: torch.device | str | None = None) -> Self:
        return cls(pte_path=pte_path, device=device)

    def generate(
        self, prompt: Prompt, config: DiffusionGenerationConfig = DiffusionGenerationConfig()
    ) -> list[int] | list[list[int]]:
        """The prompt and the new tokens in one list; for a batch a list for each row.

        prompt: a list, a tensor (S,) or (1, S); a batch is a list of lists or a tensor (B, S). A prompt that holds
        mask ids is filled there and not gone on from.
        """
        rows, alone = prompt_rows(prompt)
        finished = finish(decode(self.model, rows, self.plan(config), device=self.device))
        return finished.texts[0] if alone else finished.texts

    def generate_stream(
        self, prompt: Prompt, config: DiffusionGenerationConfig = DiffusionGenerationConfig()
    ) -> Iterator[tuple[int, int]]:
        """(position, token) of each new token once, from left to right, when its block is finished; of one prompt.

        The position is that in what generate() gives. Within a block tokens become clear in any order, and a reveal
        may take one back: `decode` tells of that in its drafts.
        """
        for event in decode(self.model, [one_prompt(prompt)], self.plan(config), device=self.device):
            if isinstance(event, Committed):
                for column in event.asked[0].nonzero()[:, 0].tolist():
                    yield event.start + column, int(event.block[0, column])

    def plan(self, config: DiffusionGenerationConfig) -> Plan:
        """What the config means to `decode`."""
        spec = self.model.spec
        if config.mask_token_id not in (None, spec.mask_id):
            raise UsageError(f"mask_token_id={config.mask_token_id}, but the model's mask is id {spec.mask_id}")
        return plan_for(
            spec,
            max_new_tokens=config.max_new_tokens,
            block_size=fitting_block(self.model, config.block_size),
            steps=config.num_iterations,
            context=best_context(self.model),
            sampler=choose_sampler(config.temperature, config.top_k, config.top_p),
            reveal=RevealAbove(config.confidence_threshold),
            stop_ids=end_ids(self.model, config.eos_token_id) if config.early_stop else (),
            seed=config.seed,
        )
