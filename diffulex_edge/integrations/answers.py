"""What a harness asks of a language model, answered by a denoiser: likelihoods, and text. Knows no harness.

Answers come as they are found, each with the number of its request, so that a harness may show and keep them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from diffulex_edge.bench.bounds import Reading, Window, by_shape, windows
from diffulex_edge.bench.conditional import Conditional
from diffulex_edge.diffusion.schedule import find_schedule
from diffulex_edge.errors import UsageError
from diffulex_edge.integrations.generation import Generation
from diffulex_edge.model.base import Denoiser, DenoiserSpec
from diffulex_edge.runtime.decode import Committed, decode
from diffulex_edge.runtime.greedy import writes
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.stream import TextStream
from diffulex_edge.runtime.text import prompt_ids, text_plan
from diffulex_edge.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class AnswerConfig:
    """How requests are answered."""

    context: str | None = None  # None: the best where attention is block-causal, else canvas or full
    block_size: int | None = None  # tokens; None: the model's own where attention is block-causal, else the plan's
    steps: int | None = None  # reverse steps a block, when generating; None: the model's own
    samples: int = 128  # masks drawn for each likelihood: as many as LLaDA's harness draws
    window: int = 256  # tokens scored together where a whole text is
    batch_size: int = 1  # texts generated together
    batch_tokens: int = 8192  # tokens in one forward, at most, when scoring
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "samples", "window", "batch_size", "batch_tokens"):
            value = getattr(self, name)
            if value is None and name == "steps":
                continue
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{name}={value!r} must be an integer of at least 1")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 32:
            raise UsageError(f"seed={self.seed!r} must be an integer from 0 to 2^32 - 1")


class Answers:
    """A model that is asked."""

    def __init__(self, denoiser: Denoiser, tokenizer: Tokenizer, config: AnswerConfig = AnswerConfig()) -> None:
        self.denoiser, self.tokenizer, self.config = denoiser, tokenizer, config
        kind = config.context or natural_context(denoiser.spec)
        size = config.block_size or denoiser.spec.block_length or Plan.block_size
        self._aligned = denoiser.begin(kind, 1, size).aligned
        self._limit = denoiser.spec.contexts[kind]
        plan = plan_for(denoiser.spec, context=kind, block_size=size, steps=config.steps, seed=config.seed)
        self._plan = text_plan(denoiser, tokenizer, plan)
        self._bound = Conditional(
            kind=kind,
            block_size=size,
            n_samples=config.samples,
            seed=config.seed,
            reading=Reading(schedule=find_schedule(denoiser.spec.mask_schedule), batch_tokens=config.batch_tokens),
        )

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """log p(continuation | context) in nats, bounded from below, and whether greedy decoding writes it.

        A context that is too long loses its beginning.
        """
        parts = [self._window(context, continuation, i) for i, (context, continuation) in enumerate(pairs)]
        for (length, given), members in by_shape(parts).items():
            for chunk in torch.tensor(members).split(max(1, self.config.batch_tokens // max(length, 1))):
                chosen = [parts[i] for i in chunk.tolist()]
                nats = self._bound.nats(self.denoiser, chosen)
                greedy = writes(self.denoiser, torch.stack([part.ids for part in chosen]), given, self._plan)
                yield from zip(chunk.tolist(), zip((-nats).tolist(), greedy.tolist(), strict=True), strict=True)

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """log p(text) in nats, bounded from below: windows that cover the text, each token scored once."""
        size = min(self.config.window, self._limit or self.config.window)
        for i, text in enumerate(texts):
            yield i, -float(self._bound.nats(self.denoiser, windows([self.tokenizer.encode(text)], size)).sum())

    def continuations(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[int, str]]:
        """What the model writes after each prompt under its generation settings, `Generation.read`."""
        groups = defaultdict(list)
        for i, (_, said) in enumerate(requests):
            groups[Generation.read(said)].append(i)
        seed = self.config.seed
        for generation, members in groups.items():
            members.sort(key=lambda i: len(requests[i][0]))
            for chunk in torch.tensor(members).split(self.config.batch_size):
                plan = replace(self._plan, seed=seed)
                seed += 1  # a prompt that is asked about twice is not answered alike, where chance has a say
                texts = self._write([requests[i][0] for i in chunk.tolist()], generation, plan)
                yield from zip(chunk.tolist(), texts, strict=True)

    def _window(self, context: str, continuation: str, i: int) -> Window:
        """Both as ids. White space between them belongs to the continuation, as it belongs to its first token.

        A token that reaches from the one into the other is scored whole.
        """
        text = context.rstrip()
        ids, known = self.tokenizer.encode(context + continuation), self.tokenizer.encode(text)
        given = next((n for n, (a, b) in enumerate(zip(ids, known, strict=False)) if a != b), min(len(ids), len(known)))
        cut = max(0, len(ids) - (self._limit or len(ids)))
        if cut > given:
            raise UsageError(
                f"a continuation of {len(ids) - given} tokens passes the {self._limit} that the model takes"
            )
        return Window(torch.tensor(ids[cut:], dtype=torch.long), given - cut, i)

    def _write(self, prompts: Sequence[str], generation: Generation, plan: Plan) -> list[str]:
        """Decodes until each text has its end: a stop string, the end of text, or its length."""
        plan = replace(plan, max_new_tokens=generation.max_new_tokens, sampler=generation.sampler)
        rows = [self._fitting(prompt_ids(self.tokenizer, prompt), plan) for prompt in prompts]
        streams, texts = [TextStream(self.tokenizer, row) for row in rows], [""] * len(rows)
        for event in decode(self.denoiser, rows, plan):
            if isinstance(event, Committed):
                for i, (block, asked) in enumerate(zip(event.block, event.asked, strict=True)):
                    texts[i] += streams[i].push(block[asked].tolist())
                if all(map(generation.ended, texts)):
                    break
        whole = [text + stream.close() for text, stream in zip(texts, streams, strict=True)]
        spaced = [not prompt or prompt[-1].isspace() for prompt in prompts]
        return [generation.cut(text.lstrip() if after else text) for text, after in zip(whole, spaced, strict=True)]

    def _fitting(self, prompt: list[int], plan: Plan) -> list[int]:
        """The end of the prompt, as much as leaves room for the text."""
        if self._limit is None:
            return prompt
        room = self._limit - plan.max_new_tokens - (plan.block_size if self._aligned else 0)
        if room < 1:
            raise UsageError(
                f"{plan.max_new_tokens} new tokens leave no room for a prompt in the {self._limit} of the model"
            )
        return prompt[-room:]


def natural_context(spec: DenoiserSpec) -> str:
    """What the model is asked in: its best context where attention is block-causal, else all of the text at once."""
    kinds = list(spec.contexts)
    whole = kinds if spec.block_length is not None else [kind for kind in ("canvas", "full") if kind in kinds]
    return (whole or kinds)[0]
