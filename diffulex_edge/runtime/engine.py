"""`InferenceEngine`: tokens in, new tokens out. Seed 003's engine as a thin object over `decode`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import Denoiser, DenoiserSpec
from diffulex_edge.runtime.decode import Committed, Finished, decode
from diffulex_edge.runtime.penalty import Penalised
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.requests import (
    Prompt,
    StopSequences,
    best_context,
    end_ids,
    one_prompt,
    open_model,
    prompt_rows,
)
from diffulex_edge.runtime.sampler import choose_sampler

Generated = list[int] | list[list[int]] | Iterator[int]


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """What to generate. Without `eos_token_id` texts end at the ids that the model's spec names, which may be none."""

    max_new_tokens: int = 100
    temperature: float = 1.0  # 0: the likeliest token, whatever top_k and top_p say
    top_k: int = 50  # tokens drawn from; 0: all
    top_p: float = 0.9  # probability mass drawn from; 1: all
    repetition_penalty: float = 1.0  # above 1: what is in the text already becomes less likely
    stop_sequences: Sequence[Sequence[int]] | None = None  # a row ends behind the first of these that it writes
    pad_token_id: int | None = None  # never written, unless it is what ends a text; None: there is none
    eos_token_id: int | None = None  # a row ends behind it
    stream: bool = False  # generate() gives an iterator, that of generate_stream(), in place of a list
    seed: int = 0  # the same seed gives the same text
    block_size: int | None = None  # tokens decoded together; None: the model's own, else the plan's
    steps: int | None = None  # reverse steps a block, at most; None: the model's own, else the plan's

    def __post_init__(self) -> None:
        if any(not len(sequence) for sequence in self.stop_sequences or ()):
            raise UsageError(f"stop_sequences={self.stop_sequences} holds an empty one, which every text ends with")


class InferenceEngine:
    """Continues prompts with one model, in the best of its contexts or the one that is named.

    A batch decodes greedily as its rows do alone; where tokens are drawn, its rows share one source of chance. A prompt
    that holds mask ids is filled there and not gone on from.
    """

    def __init__(
        self,
        model: Denoiser | None = None,
        *,
        pte_path: str | Path | None = None,
        device: torch.device | str | None = None,
        context: str | None = None,
    ) -> None:
        """device: where the model is put; None: where it is. context: a kind that it has; None: its best."""
        self.model, self.device = open_model(model, pte_path, device)
        self.context = best_context(self.model) if context is None else context

    @classmethod
    def from_model(cls, model: Denoiser, **options: Any) -> Self:
        return cls(model, **options)

    @classmethod
    def from_pte(cls, pte_path: str | Path, **options: Any) -> Self:
        return cls(pte_path=pte_path, **options)

    def generate(self, prompt_tokens: Prompt, config: GenerationConfig = GenerationConfig()) -> Generated:
        """The new tokens, up to and with what ended them; for a batch a list for each row.

        prompt_tokens: a list, a tensor (S,) or (1, S); a batch is a list of lists or a tensor (B, S).
        """
        if config.stream:
            return self.generate_stream(prompt_tokens, replace(config, stream=False))
        rows, alone = prompt_rows(prompt_tokens)
        texts: list[list[int]] = [[] for _ in rows]
        for pieces in self._pieces(rows, config):
            for text, piece in zip(texts, pieces, strict=True):
                text += piece
        return texts[0] if alone else texts

    def generate_stream(self, prompt: Prompt, config: GenerationConfig = GenerationConfig()) -> Iterator[int]:
        """The tokens of generate(), each block's when it is finished; none is taken back. One prompt only."""
        for (piece,) in self._pieces([one_prompt(prompt)], config):
            yield from piece

    def reset_cache(self) -> None:
        """Does nothing: what is remembered of a text is a value of its own, so no call finds anything of another's."""

    def benchmark(
        self,
        prompt_length: int = 128,
        generate_length: int = 100,
        warmup: int = 3,
        runs: int = 10,
        config: GenerationConfig = GenerationConfig(),
    ) -> dict[str, float]:
        """Medians over the runs, of random prompts, none of which ends early; tokens_per_sec is of the whole run.

        prefill_ms: until the prompt is read and the first block looked at once, which in a context of ids is when the
        prompt is read; decode_ms: from there to the last token.
        """
        if min(prompt_length, warmup) < 0 or min(generate_length, runs) < 1:
            raise UsageError(f"{prompt_length=}, {warmup=} must be at least 0; {generate_length=}, {runs=} at least 1")
        plan = replace(self.plan(config), max_new_tokens=generate_length, stop_ids=())
        model, times = self._penalised(config), []
        for run in range(warmup + runs):
            prompt = _random_prompt(self.model.spec, prompt_length, run)
            start, first = time.perf_counter(), 0.0
            for event in decode(model, [prompt], plan, device=self.device):
                if not first and not isinstance(event, Finished):
                    event.block.tolist()  # waits for a device that works on its own
                    first = time.perf_counter()
            times.append((first - start, time.perf_counter() - first))
        prefill, rest = (statistics.median(part) for part in zip(*times[warmup:], strict=True))
        whole = statistics.median(a + b for a, b in times[warmup:])
        return {
            "prefill_ms": 1000 * prefill,
            "decode_ms": 1000 * rest,
            "tokens_per_sec": generate_length / whole,
            "prefill_tokens": prompt_length,
            "decode_tokens": generate_length,
        }

    def plan(self, config: GenerationConfig) -> Plan:
        """What the config means to `decode`."""
        pad, stops = config.pad_token_id, config.stop_sequences or ()
        ends = end_ids(self.model, config.eos_token_id) + tuple(stop[0] for stop in stops if len(stop) == 1)
        return plan_for(
            self.model.spec,
            max_new_tokens=config.max_new_tokens,
            block_size=config.block_size,
            steps=config.steps,
            context=self.context,
            sampler=choose_sampler(config.temperature, config.top_k, config.top_p),
            stop_ids=ends,
            banned=() if pad is None or pad in ends else (pad,),
            seed=config.seed,
        )

    def _pieces(self, rows: list[list[int]], config: GenerationConfig) -> Iterator[list[list[int]]]:
        """What each row gets of each finished block."""
        ends = StopSequences(len(rows), config.stop_sequences or ())
        for event in decode(self._penalised(config), rows, self.plan(config), until=ends, device=self.device):
            if isinstance(event, Committed):
                yield ends.pieces

    def _penalised(self, config: GenerationConfig) -> Denoiser:
        return self.model if config.repetition_penalty == 1 else Penalised(self.model, config.repetition_penalty)


def _random_prompt(spec: DenoiserSpec, length: int, seed: int) -> list[int]:
    """Any ids but the mask."""
    ids = torch.randint(spec.vocab_size - 1, (length,), generator=torch.Generator().manual_seed(seed))
    return (ids + (ids >= spec.mask_id)).tolist()
