"""`tune`: which engine writes a model's text fastest on this machine without losing more than its bits may.

First all engines and thread counts, in blocks of the model's own size; then the winner in other blocks, which take as
many steps a token. Quality is that of held-out texts, read block by block as they are written.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from diffulex_edge.bench.progress import bar
from diffulex_edge.bench.statistics import BITS, paired_bootstrap, ratio
from diffulex_edge.bench.steps import weight_bytes
from diffulex_edge.bench.texts import Texts
from diffulex_edge.errors import BackendUnavailable, UsageError
from diffulex_edge.files import alone_in
from diffulex_edge.machine import cores, need_memory
from diffulex_edge.quant.quantizer import is_quantized
from diffulex_edge.runtime.plan import MODES, Plan, mode_plan, plan_for
from diffulex_edge.text.tokenizer import Tokenizer
from diffulex_edge.tuning.choice import Choice, here
from diffulex_edge.tuning.engines import BASELINE, ENGINES, Workshop
from diffulex_edge.tuning.players import Side
from diffulex_edge.tuning.race import Finish, Race


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    engines: tuple[str, ...] = (
        BASELINE,
        "eager-bf16",
        "xnnpack-dynamic_int8",
        "openvino",
        "openvino-weight_only_int8",
    )  # those whose packages are missing are left out, and said so
    thread_counts: tuple[int, ...] = ()  # none: one alone, and one a core
    block_sizes: tuple[int, ...] = ()  # tokens, beside the model's own size; none: half of it and twice
    seconds: float = 60.0  # of writing, of all engines together; making programs takes minutes more, once
    new_tokens: int = 128  # of a turn
    max_length: int = 512  # tokens that a program with a cache takes; EcoHybrid's memory has no limit
    budget: float | None = None  # share of bits a character that may be lost; None: 0.01, and 0.05 in 4 bits
    texts: int = 12  # documents that quality is measured on, at most
    window: int = 256  # tokens of each, at most

    def __post_init__(self) -> None:
        unknown = [name for name in self.engines if name not in ENGINES]
        if unknown or BASELINE not in self.engines:
            told = f"engines: {unknown[0]!r} is not one of" if unknown else f"engines: {BASELINE} must be one of these:"
            raise UsageError(f"{told} {', '.join(ENGINES)}")
        for name in ("thread_counts", "block_sizes", "new_tokens", "max_length", "texts", "window"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,), default=1) < 1:
                raise UsageError(f"{name}={value} must be at least 1")
        if not self.seconds > 0:
            raise UsageError(f"seconds={self.seconds} must be above 0")


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Held-out texts, cut so that every size of block divides them."""

    ids: list[list[int]]
    chars: NDArray[np.float64]  # (n,)

    @classmethod
    def of(cls, texts: Texts, tokenizer: Tokenizer, size: int, config: TuneConfig) -> Sample:
        """size: in tokens, of what all blocks divide."""
        most = max(size, config.window - config.window % size)
        cut = [ids[: min(most, len(ids) - len(ids) % size)] for ids in texts.ids]
        kept = [ids for ids in cut if ids][: config.texts]
        if not kept:
            raise UsageError(f"none of {len(texts.ids)} documents has {size} tokens, of which all blocks are parts")
        return cls(ids=kept, chars=np.array([len(tokenizer.decode(ids)) for ids in kept], np.float64))


def tune(workshop: Workshop, tokenizer: Tokenizer, texts: Texts, config: TuneConfig) -> dict[str, Any]:
    """Measures, writes the choice and its program, and gives every row.

    The choice lies in `workshop.folder`, programs in a folder of that.
    Raises UsageError for a model that nothing can be made of, BackendUnavailable where not even the plain one runs,
    ResourceError where memory does not hold all engines at once.
    """
    model = workshop.model
    _check(model, workshop.source)
    plan = plan_for(model.spec)
    size, others = plan.block_size, _other_sizes(model.spec.block_length, plan.block_size, config)
    sample = Sample.of(texts, tokenizer, math.lcm(size, *others), config)
    race = Race(sample.ids, config.seconds, config.new_tokens)
    with alone_in(workshop.folder, "tune"):
        threads = config.thread_counts or tuple(sorted({1, cores()}))
        sides = _sides(workshop, race, plan, config.engines, threads, (size,))
        need_memory(len(sides) * weight_bytes(model), f"racing {len(sides)} engines")
        ends = race.run(sides)
        plain = _plain(ends, race)
        rows = [_row(end, plain, plain, sample, config) for end in ends]
        best = ends[fastest(rows, ends.index(plain))]
        if others:
            engine, threads = (best.side.engine,), (best.side.threads,)
            later = race.run(_sides(workshop, race, plan, engine, threads, (size, *others)))
            own = next((end for end in later if end.side == best.side), None)
            if own is not None:
                by_size = [_row(end, own, plain, sample, config) for end in later]
                best = later[fastest(by_size, later.index(own))]
                rows += by_size
        chosen = next(row for row in reversed(rows) if row["name"] == best.side.name)
        choice = _choice(workshop, best, chosen, plan)
        choice.write(workshop.folder)
        workshop.tidy(choice.program)
    return {"chosen": choice.told(), "choice": asdict(choice), "rows": rows, "missing": race.missing}


def _check(model: Any, source: Path) -> None:
    if not isinstance(model, nn.Module) or is_quantized(model):
        raise UsageError(f"{source}: engines are made of a model in floating point")
    spec: Any = model.spec
    if spec.autoregressive:
        raise UsageError(f"{source}: an autoregressive model has no blocks to choose")


def fastest(rows: Sequence[dict[str, Any]], base: int) -> int:
    """The row to choose: that of the base, unless another passes and is faster beyond doubt."""
    sure = [i for i, row in enumerate(rows) if row["passes"] and row["times_base"]["low"] > 1]
    return max(sure, key=lambda i: float(rows[i]["times_base"]["ratio"]), default=base)


def _other_sizes(fixed: int | None, own: int, config: TuneConfig) -> tuple[int, ...]:
    """Of blocks, beside the model's own; none where the model was trained for that alone."""
    wished = config.block_sizes or (own // 2, 2 * own)
    return () if fixed else tuple(size for size in dict.fromkeys(wished) if size not in (0, own))


def _sides(
    workshop: Workshop, race: Race, plan: Plan, engines: Sequence[str], threads: Sequence[int], sizes: Sequence[int]
) -> list[Side]:
    """Those whose programs can be made; longer blocks take more steps, so that a step shows as many tokens."""
    found = []
    with bar("making engines", len(engines) * len(sizes)) as advance:
        for engine in engines:
            for size in sizes:
                try:
                    path = workshop.make(engine, size)
                except (BackendUnavailable, UsageError) as error:
                    race.missing[engine] = str(error)
                else:
                    for count in threads:
                        side = Side(
                            engine=engine,
                            path=path,
                            tokenizer=workshop.tokenizer,
                            precision=ENGINES[engine].precision,
                            threads=count,
                            context=plan.context,
                            block_size=size,
                            steps=-(-plan.steps * size // plan.block_size),
                        )
                        found.append(side)
                advance(1)
    return found


def _plain(ends: Sequence[Finish], race: Race) -> Finish:
    """The model itself in its faster number of threads."""
    found = [end for end in ends if end.side.engine == BASELINE]
    if not found:
        raise BackendUnavailable("; ".join(f"{name}: {why}" for name, why in race.missing.items()))
    return min(found, key=lambda end: statistics.median(end.times[:, 1].tolist()))


def _row(end: Finish, base: Finish, right: Finish, sample: Sample, config: TuneConfig) -> dict[str, Any]:
    """An end, its speed over the base's, and its loss against the end that is right."""
    engine, side = ENGINES[end.side.engine], end.side
    bits, lost = (ratio(nats * BITS, sample.chars) for nats in (end.nats, end.nats - right.nats))
    whole = bits.value - lost.value
    budget = engine.budget if config.budget is None else config.budget
    cpu, wall = (statistics.median(column) for column in end.times.T.tolist())
    same = side.block_size == right.side.block_size  # then the same places were hidden
    return {
        "name": side.name,
        "engine": side.engine,
        "threads": side.threads,
        "block_size": side.block_size,
        "steps": side.steps,
        "turns": len(end.times),
        "ready_s": end.ready_s,
        "tokens_per_s": config.new_tokens / wall,
        "cpu_ms_per_token": 1e3 * cpu / config.new_tokens,
        "times_base": vars(paired_bootstrap(base.times[:, 1], end.times[:, 1])),
        "base": base.side.name,
        "bits_per_char": bits.value,
        "loss": lost.value / whole,
        "loss_stderr": lost.stderr / whole,
        "budget": budget,
        "guess_agreement": float((end.guesses == right.guesses).mean()) if same else None,
        "passes": bool(lost.value / whole <= budget),
    }


def _choice(workshop: Workshop, best: Finish, row: dict[str, Any], plan: Plan) -> Choice:
    side, program = best.side, ENGINES[best.side.engine].backend is not None
    return Choice(
        engine=side.engine,
        program=str(side.path.relative_to(workshop.folder)) if program else None,
        precision=side.precision,
        threads=side.threads,
        context=side.context,
        modes=[mode for mode in MODES if mode_plan(mode, plan, workshop.model.spec).context == side.context],
        block_size=side.block_size,
        steps=side.steps,
        max_length=best.limit,
        measured={name: row[name] for name in ("tokens_per_s", "times_base", "base", "bits_per_char", "loss")},
        weights=workshop.weights,
        machine=here(),
    )
