"""`sample`: a prompt goes in, its continuation comes out, and in a terminal one sees how."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffulex_edge.bench.measure import BenchConfig, benchmark
from diffulex_edge.bench.report import bench_table
from diffulex_edge.cli.blocks import BlockFlags
from diffulex_edge.cli.decoding import DecodingFlags
from diffulex_edge.cli.flags import ModelFlags
from diffulex_edge.cli.live import View, watch
from diffulex_edge.cli.parse import check_place, console
from diffulex_edge.cli.picture import save_picture
from diffulex_edge.cli.prompt import in_script_of, read_prompt
from diffulex_edge.cli.tuned import tuned_for_text
from diffulex_edge.model.base import Denoiser, DenoiserSpec
from diffulex_edge.runtime.decode import decode
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.text import StopStrings, prompt_ids, text_plan
from diffulex_edge.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Continues a prompt."""

    model: ModelFlags = ModelFlags()
    decoding: DecodingFlags = DecodingFlags(temperature=None, top_k=None, top_p=None)
    blocks: BlockFlags = BlockFlags()
    prompt: str = "एक समय की बात है"  # the text to go on from; - reads standard input
    keep_script: bool | None = None  # True: in the script of the prompt alone, or in both of its; None: the model's own
    untuned: bool = False  # leave out what `tune` chose, as do --pte, --threads, --precision, --compile, --edge_profile
    benchmark_runs: int = 0  # decode so many times more and tell the speed
    warmup_runs: int = 1  # runs before those that count
    picture: Path | None = None  # also draw the steps into this SVG file

    @property
    def json(self) -> str | None:
        return self.model.json


def run(flags: Flags) -> dict[str, Any]:
    prompt, out = read_prompt(flags.prompt), console(flags.json)
    check_place(flags.picture)
    if not flags.untuned:
        flags = replace(flags, model=tuned_for_text(flags.model, flags.blocks, flags.decoding, prompt))
    denoiser, tokenizer = flags.model.open()
    base = flags.blocks.plan(flags.decoding, denoiser, flags.model.profile)
    base = in_script_of(prompt, base, denoiser, tokenizer, flags.keep_script)
    plan = flags.blocks.fitted(base, flags.decoding, denoiser.spec)
    config = _bench_config(flags, prompt, base, denoiser.spec) if flags.benchmark_runs else None
    if flags.blocks.frozen_context and "block_frozen" not in denoiser.spec.trained_modes:
        print(f"warning: {flags.model.ckpt} was not trained for --frozen_context; expect worse text", file=sys.stderr)
    ids, plan = prompt_ids(tokenizer, prompt), text_plan(denoiser, tokenizer, plan)
    view, rows, start = View(tokenizer, ids), StopStrings(tokenizer, [prompt], flags.blocks.stop), time.perf_counter()
    done = watch(decode(flags.decoding.guide(denoiser), [ids], plan, until=rows), view, out)
    seconds = time.perf_counter() - start
    text, new = prompt + rows.text(0), len(done.tokens[0])
    out.print(text, markup=False)
    out.print(f"{new} tokens, {seconds:.2f} s, {new / seconds:.0f} tok/s, {done.forwards} forwards", style="dim")
    if flags.picture is not None:
        save_picture(view, flags.picture)
    speed = _speed(flags, config, denoiser, tokenizer) if config else {}
    return {"prompt": prompt, "text": text, "tokens": new, "seconds": seconds, "forwards": done.forwards, **speed}


def _bench_config(flags: Flags, prompt: str, base: Plan, spec: DenoiserSpec) -> BenchConfig:
    config = BenchConfig(prompts=(prompt,), runs_per_prompt=flags.benchmark_runs, warmup_runs=flags.warmup_runs)
    return flags.blocks.measured(config, base, flags.decoding, spec)


def _speed(flags: Flags, config: BenchConfig, denoiser: Denoiser, tokenizer: Tokenizer) -> dict[str, Any]:
    result = benchmark(flags.decoding.guide(denoiser), tokenizer, config)
    console(flags.json).print(bench_table(result))
    return {"benchmark": result}
