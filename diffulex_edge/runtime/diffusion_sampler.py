"""Seed 003's sampler for one forward over a whole text: a thin object over a Sampler and RevealAbove.

For code that runs its own forward. `decode` does all of this by itself, and for every family's convention of logits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.runtime.confidence import Score, margin, negative_entropy, probability
from diffulex_edge.runtime.diffusion_blocks import DiffusionBlock, DiffusionBlockManager
from diffulex_edge.runtime.reveal import RevealAbove
from diffulex_edge.runtime.sampler import Guess, ban, choose_sampler
from diffulex_edge.runtime.step import Step


@dataclass(frozen=True, kw_only=True)
class SampleOutput:
    """What one look at the active blocks gave. Keys are positions in the text."""

    sampled_tokens: dict[int, int] = field(default_factory=dict)  # a guess for each hidden position
    confidence_scores: dict[int, float] = field(default_factory=dict)  # of the guess
    accepted_tokens: dict[int, int] = field(default_factory=dict)  # the guesses that are kept
    block_states: list[dict[str, Any]] = field(default_factory=list)  # of every block, afterwards


class DiffusionSampler:
    """Samples hidden positions and accepts what it is sure of. Its mask id must be the model's, and is never sampled.

    Confidence is the token's probability, or the gap between the two likeliest (margin_confidence), or sum p log p in
    nats (neg_entropy): 0 where the model is certain, below 0 elsewhere. All are of the model's own distribution,
    whatever the temperature. A threshold in [0, 1] is compared with the first two as they are, and with the last as
    exp(sum p log p), one over the perplexity.
    """

    def __init__(
        self,
        mask_token_id: int,
        confidence_threshold: float = 0.95,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        margin_confidence: bool = False,
        neg_entropy: bool = False,
        *,
        seed: int = 0,
    ) -> None:
        if margin_confidence and neg_entropy:
            raise UsageError(f"{margin_confidence=} and {neg_entropy=}: confidence is one of them")
        self.mask_token_id, self.confidence_threshold, self.seed = mask_token_id, confidence_threshold, seed
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self._score: Score = margin if margin_confidence else negative_entropy if neg_entropy else probability
        self._share = (
            torch.exp if neg_entropy else torch.clone
        )  # from a confidence to what thresholds are compared with
        self._generators: dict[torch.device, torch.Generator] = {}

    def shift_logits(self, logits: Tensor, last_logits: Tensor | None = None) -> Tensor:
        """From logits (L, V) that speak about the next token to such that speak about their own: row i about token i.

        Row 0 is last_logits (V,), those of the token before the text; without them it keeps its own, as Dream does.
        """
        if logits.dim() != 2:
            raise UsageError(f"logits of shape {tuple(logits.shape)}: (L, V) is needed")
        before = logits[:1] if last_logits is None else last_logits.reshape(1, -1)
        return torch.cat((before, logits[:-1])) if len(logits) else logits

    def compute_confidence(self, logits: Tensor, sampled_tokens: Tensor) -> Tensor:
        """How sure the model is (n,) at each of n positions, from logits (n, V) and what was sampled there (n,)."""
        logits = logits.float()
        chosen = logits.softmax(-1).gather(-1, sampled_tokens[:, None])[:, 0]
        hidden = torch.ones(1, len(logits), dtype=torch.bool, device=logits.device)
        return self._score(Guess(sampled_tokens, chosen, logits, hidden, self._chance(logits.device)))

    def sample_tokens(
        self, logits: Tensor, temperature: float | None = None, top_p: float | None = None, top_k: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From logits (n, V): confidence (n,), tokens (n,), and the tokens' probability (n,). None: as constructed."""
        hidden = torch.ones(1, len(logits), dtype=torch.bool, device=logits.device)
        guess = self._guess(logits, hidden, temperature, top_p, top_k)
        return self._score(guess), guess.token, guess.probability

    def sample_blocks(
        self,
        block_manager: DiffusionBlockManager,
        logits: Tensor,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> SampleOutput:
        """Samples all hidden positions of the active blocks, from logits (S, V) of the whole text, and fills blocks in.

        In each block what reaches the threshold is accepted, and always the surest. None: as constructed.
        """
        reveal = RevealAbove(self.confidence_threshold if threshold is None else threshold)
        output = SampleOutput()
        for block_id, block in block_manager.get_active_blocks():
            where = block.global_mask_token_ids
            if where[-1] >= len(logits):
                raise UsageError(f"a block reaches to position {where[-1]}, the logits to {len(logits) - 1}")
            ids, hidden = self._tensors(block, logits.device)  # (1, L)
            guess = self._guess(logits[where], hidden, temperature, top_p, top_k)
            confidence = self._score(guess)
            after, _ = reveal(
                replace(guess, probability=self._share(confidence)), ids, ~hidden, _look(logits.device), None
            )
            new = (after != ids)[0].nonzero()[:, 0].tolist()
            block_manager.update_block(block_id, new, after[0, new].tolist())
            output.sampled_tokens.update(zip(where, guess.token.tolist(), strict=True))
            output.confidence_scores.update(zip(where, confidence.tolist(), strict=True))
            output.accepted_tokens.update((block.get_global_pos(i), block.accepted_token_ids[i]) for i in new)
        output.block_states.extend(_state(block) for block in block_manager.blocks)
        return output

    def _guess(
        self, logits: Tensor, hidden: Tensor, temperature: float | None, top_p: float | None, top_k: int | None
    ) -> Guess:
        if not 0 <= self.mask_token_id < logits.shape[-1]:
            raise UsageError(
                f"mask_token_id={self.mask_token_id} is not one of the {logits.shape[-1]} ids of the logits"
            )
        sampler = choose_sampler(
            self.temperature if temperature is None else temperature,
            self.top_k if top_k is None else top_k,
            self.top_p if top_p is None else top_p,
        )
        mask = torch.tensor([self.mask_token_id], device=logits.device)
        return sampler(ban(logits, mask), hidden, self._chance(logits.device))

    def _chance(self, device: torch.device) -> torch.Generator:
        return self._generators.setdefault(device, torch.Generator(device).manual_seed(self.seed))

    def _tensors(self, block: DiffusionBlock, device: torch.device) -> tuple[Tensor, Tensor]:
        """The block's ids (1, L), and which of them are hidden."""
        hidden = [i not in block.accepted_token_ids for i in range(block.length)]
        return torch.tensor([block.token_ids], device=device), torch.tensor([hidden], device=device)


def _look(device: torch.device) -> Step:
    """A step that asks for no more than what the threshold lets through, and the token that a reveal always shows."""
    none = torch.zeros(1, dtype=torch.long, device=device)
    return Step(index=0, steps=2, t=none + 1.0, s=none.float(), depth=1, quota=none, last=none.bool())


def _state(block: DiffusionBlock) -> dict[str, Any]:
    accepted, masked = len(block.accepted_token_ids), len(block.global_mask_token_ids)
    return {
        "is_active": block.is_active,
        "is_complete": block.is_complete,
        "num_accepted": accepted,
        "num_masked": masked,
    }
