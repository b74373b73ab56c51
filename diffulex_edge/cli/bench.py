"""`bench`: decoding (bench/measure.py), or one of the probes (cli/probes.py): training, one denoise step, recall."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from diffulex_edge.bench.measure import BenchConfig, benchmark
from diffulex_edge.bench.report import bench_table, picture_format, plot
from diffulex_edge.cli.flags import ModelFlags
from diffulex_edge.cli.parse import console
from diffulex_edge.cli.probes import Probes
from diffulex_edge.cli.suite import run_suite, run_verdict
from diffulex_edge.cli.tuned import Tuned, longest, tuned
from diffulex_edge.suite.workplace import SuiteConfig
from diffulex_edge.text.corpus import read_documents
from diffulex_edge.tuning.choice import Task

COMPILING = 1800.0  # seconds that the first run of --compile may take


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Measures decoding, mode against mode, speed and quality in one table; or, by a flag, something else."""

    model: ModelFlags = ModelFlags()
    config: BenchConfig = BenchConfig()
    untuned: bool = False  # leave out what `tune` chose, as do --pte, --threads, --precision, --compile, --edge_profile
    data: tuple[Path, ...] = ()  # documents that the quality is measured on; none: generated sentences
    plot: Path | None = None  # draw quality against speed into this .svg or .png
    probes: Probes = Probes()
    suite: Literal["seeds"] | None = None  # measure the rows of the seeds' experiments that are missing, on --data
    verdict: bool = False  # apply seed 002's rules to the rows that the suite measured
    experiments: SuiteConfig = SuiteConfig()

    @property
    def json(self) -> str | None:
        return self.model.json


def run(flags: Flags) -> dict[str, Any]:
    if flags.suite:
        return run_suite(flags.experiments, flags.probes.data_dir, flags.data, flags.json)
    if flags.verdict:
        return run_verdict(flags.experiments, flags.json)
    table, result = flags.probes.measure(flags.model, flags.data) or (bench_table, _decoding(flags))
    console(flags.json).print(table(result))
    if table is bench_table and flags.plot is not None:
        plot(result, flags.plot)
    return result


def _decoding(flags: Flags) -> dict[str, Any]:
    if flags.plot is not None:
        picture_format(flags.plot)
    config = flags.config
    beyond = "sweeps" if config.sweeps else "depth that grows" if config.min_decode_layers else ""
    tokens = longest(flags.model, config.prompts, config.max_new_tokens)
    task = Task(modes=config.modes, block_size=config.block_size, longest=tokens, beyond=beyond)
    model = flags.model if flags.untuned else tuned(flags.model, task)
    patience = max(config.slowest_run, COMPILING if model.compile else 0)
    config = replace(
        config, steps=model.steps(config.steps), block_size=model.block(config.block_size), slowest_run=patience
    )
    documents = list(read_documents(flags.data)) if flags.data else None
    return {
        **benchmark(*model.open(), config, documents),
        "tuned": model.chosen.told() if isinstance(model, Tuned) else None,
    }
