"""Is this what greedy decoding writes? Asked of given texts by harnesses that score them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.decode import Draft, decode
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.quota import EvenSplit
from diffulex_edge.runtime.reveal import RevealTop
from diffulex_edge.runtime.sampler import Greedy


def writes(denoiser: Denoiser, texts: Tensor, given: int, plan: Plan) -> Tensor:
    """Whether each text (B, T) is what greedy decoding makes of its own first `given` ids: bool (B,).

    One token a step, the surest first, as LLaDA's harness does (arXiv:2502.09992); the plan says in which context, and
    of which size the blocks are where they are aligned. It ends as soon as every row has shown another token.
    """
    if texts.shape[1] == given:
        return torch.ones(len(texts), dtype=torch.bool)
    aligned = denoiser.begin(plan.context, 1, plan.block_size).aligned
    size = plan.block_size if aligned else texts.shape[1] - given
    plan = replace(plan, block_size=size, steps=size, quota=EvenSplit(), sampler=Greedy(), reveal=RevealTop())
    hidden = texts.clone()
    hidden[:, given:] = denoiser.spec.mask_id
    truth = torch.nn.functional.pad(texts, (0, size))
    agree = torch.ones(len(texts), dtype=torch.bool, device=texts.device)
    for event in decode(denoiser, hidden, plan):
        if isinstance(event, Draft):
            shown = event.block != denoiser.spec.mask_id
            here = truth[:, event.start : event.start + event.block.shape[1]]
            agree &= ~(shown & (event.block != here)).any(1)
            if not agree.any():
                break
    return agree
