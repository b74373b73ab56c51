"""What showing several tokens at once changes: the text against that of one token a step, beside the tokens a forward.

A block is decoded from the same clean text by every rule, so that a disagreement is not carried on: the share is that
of single blocks. Greedy; the blocks are those of real documents, and what is compared is what the model writes in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from diffulex_edge.bench.environment import environment, number_type_of
from diffulex_edge.bench.progress import bar
from diffulex_edge.bench.statistics import ratio
from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.quota import OneByOne
from diffulex_edge.runtime.reveal import RevealAbove, RevealTop


@dataclass(frozen=True, kw_only=True)
class AgreementConfig:
    thresholds: tuple[float, ...] = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)  # of the rule that shows all above, one at least
    agreement_blocks: int = 64  # blocks that are decoded, spread over the documents
    agreement_prompt: int = 64  # tokens of clean text before each

    def __post_init__(self) -> None:
        if not self.thresholds or min(self.agreement_blocks, self.agreement_prompt) < 1:
            raise UsageError("agreement needs a threshold, and at least one block and one token of prompt")


def agreement(
    denoiser: Denoiser, documents: Sequence[Sequence[int]], plan: Plan, config: AgreementConfig = AgreementConfig()
) -> dict[str, Any]:
    """A row for each threshold: tokens a forward, and the share of tokens that one token a step would have written too.

    documents: ids. plan: context, block size and bans; its steps, quota and reveal are those of the rules compared.
    """
    prompts = _prompts(documents, config)
    size = plan.block_size
    slow = replace(plan, max_new_tokens=size, steps=size, quota=OneByOne(), reveal=RevealTop(), stop_ids=())
    rules = {threshold: replace(slow, reveal=RevealAbove(threshold)) for threshold in config.thresholds}
    rows = []
    with bar("blocks", len(prompts) * (1 + len(rules))) as advance:
        reference = _decoded(denoiser, prompts, slow, advance)
        for threshold, rule in rules.items():
            found = _decoded(denoiser, prompts, rule, advance)
            same = [sum(a == b for a, b in zip(x[0], y[0], strict=True)) for x, y in zip(found, reference, strict=True)]
            share = ratio(torch.tensor(same).double().numpy(), torch.full((len(same),), size).double().numpy())
            forwards = sum(n for _, n in found)
            rows.append(
                {
                    "threshold": threshold,
                    "tokens_per_forward": len(found) * size / forwards,
                    "agreement": share.value,
                    "agreement_stderr": share.stderr,
                    "forwards": forwards,
                    "forwards_one_by_one": sum(n for _, n in reference),
                }
            )
    about = environment(number_type_of(denoiser))
    return {"rows": rows, "blocks": len(prompts), "block_size": size, "environment": about}


def _prompts(documents: Sequence[Sequence[int]], config: AgreementConfig) -> list[list[int]]:
    """As many stretches of clean text as blocks are wanted, one after the other from each document in turn."""
    length, found, start = config.agreement_prompt, list[list[int]](), 0
    while len(found) < config.agreement_blocks:
        more = [list(document[start : start + length]) for document in documents if len(document) >= start + length]
        if not more:
            break
        found += more
        start += length
    if not found:
        raise UsageError(f"no document has the {length} tokens of a prompt")
    return found[: config.agreement_blocks]


def _decoded(denoiser: Denoiser, prompts: list[list[int]], plan: Plan, advance: Any) -> list[tuple[list[int], int]]:
    """What is written after each prompt, and in how many forwards; one by one, so that forwards are of one text."""
    found = []
    for prompt in prompts:
        end = finish(decode(denoiser, [prompt], plan))
        found.append((end.tokens[0], end.forwards))
        advance(1)
    return found
