"""Engines, each in a process of its own, kept alive and given turns: only one is at work at a time.

A runtime's threads are its process's, set once; and one that crashes takes no other with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffulex_edge.api import load
from diffulex_edge.bench import blocks, bounds
from diffulex_edge.diffusion.schedule import find_schedule
from diffulex_edge.errors import DiffulexEdgeError, UsageError
from diffulex_edge.machine import NUMBER_TYPES, set_threads, timed
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.plan import plan_for
from diffulex_edge.runtime.text import prompt_ids, text_plan

SAMPLES = 4  # masks drawn for each block that is read
PATIENCE = 300.0  # seconds that an engine may take to open, or for one turn


class EngineFailed(DiffulexEdgeError):
    """An engine did not open, crashed, or took too long. The message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """An engine as it is to be used."""

    engine: str
    path: Path  # what `load` opens
    tokenizer: Path
    precision: str
    threads: int
    context: str  # kind
    block_size: int  # tokens
    steps: int  # a block

    @property
    def name(self) -> str:
        return f"{self.engine}, {self.threads} thread{'s' if self.threads > 1 else ''}, blocks of {self.block_size}"


class Player:
    """A process that has one Side open."""

    def __init__(self, side: Side) -> None:
        self.side = side
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, side), daemon=True)
        self._process.start()
        theirs.close()
        self.limit: int | None  # tokens of a text, prompt and answer together; None: any
        try:
            self.opened_s, self.limit = self._answer()
        except EngineFailed:
            self.close()
            raise

    def write(self, prompt: str, tokens: int) -> tuple[float, float]:
        """Processor and wall seconds that so many tokens after the prompt took, the likeliest ones."""
        return self._ask("write", prompt, tokens)  # type: ignore[no-any-return]

    def read(self, texts: Sequence[Sequence[int]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """-log p of each text, at most, (n,), in blocks as the side has them; the likeliest token of hidden places."""
        return self._ask("read", texts)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _ask(self, *words: Any) -> Any:
        with contextlib.suppress(OSError):  # its end is told by the answer
            self._pipe.send(words)
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._pipe.poll(PATIENCE):
                raise EngineFailed(f"took more than {PATIENCE:.0f} s")
            fault, found = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            raise EngineFailed(f"its process ended with code {self._process.exitcode}") from None
        if fault:
            raise EngineFailed(fault)
        return found


def _serve(pipe: Connection, side: Side) -> None:
    """What the process does: opens the side, then answers until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    try:
        begun = time.perf_counter()
        worker = _Worker(side)
        pipe.send(("", (time.perf_counter() - begun, worker.denoiser.spec.contexts[side.context])))
        while True:
            name, *words = pipe.recv()
            pipe.send(("", getattr(worker, name)(*words)))
    except EOFError:
        pass
    except (DiffulexEdgeError, RuntimeError, OSError) as error:
        pipe.send((f"{type(error).__name__}: {error}", None))


class _Worker:
    def __init__(self, side: Side) -> None:
        set_threads(side.threads)
        denoiser, self.tokenizer = load(side.path, tokenizer=side.tokenizer)
        if isinstance(denoiser, torch.nn.Module):  # a program has its number type
            denoiser.to(NUMBER_TYPES[side.precision])
        self.denoiser = denoiser
        self.side = side
        shape = {"context": side.context, "block_size": side.block_size, "steps": side.steps}
        self.plan = replace(text_plan(denoiser, self.tokenizer, plan_for(denoiser.spec, **shape)), stop_ids=())

    def write(self, prompt: str, tokens: int) -> tuple[float, float]:
        ids, plan = prompt_ids(self.tokenizer, prompt), replace(self.plan, max_new_tokens=tokens)
        return timed(lambda: finish(decode(self.denoiser, [ids], plan)))

    def read(self, texts: Sequence[Sequence[int]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        guesses: list[torch.Tensor] = []
        size, mode = self.side.block_size, self.side.context
        reading = bounds.Reading(
            schedule=find_schedule(self.denoiser.spec.mask_schedule),
            batch_tokens=1,  # a program takes one text at a time
            observe=lambda logp, *_: guesses.append(logp.argmax(-1)),
        )
        parts = blocks.stretches(texts, size, max(map(len, texts)))
        shape: dict[str, Any] = {"block_size": size, "n_samples": SAMPLES, "modes": (mode,)}
        found = blocks.block_bounds(self.denoiser, parts, **shape, reading=reading)
        if mode in found.missing:
            raise UsageError(found.missing[mode])
        return found.nats[mode].mean(1).sum(1), torch.cat(guesses).numpy()


@contextlib.contextmanager
def players() -> Iterator[list[Player]]:
    """A list to put players into; they end with the block."""
    company: list[Player] = []
    try:
        yield company
    finally:
        for each in company:
            each.close()
