"""`quantize`: a model in fewer bits, judged beside the one it was made from, by quant/ and bench/parity.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from diffulex_edge.api import SHIPPED, load, source_of
from diffulex_edge.bench.parity import PROMPTS, ParityConfig, budget_of, gate, parity, sizes
from diffulex_edge.bench.report import parity_table
from diffulex_edge.cli.parse import console
from diffulex_edge.errors import UsageError
from diffulex_edge.machine import set_threads
from diffulex_edge.quant.folder import write_quantized
from diffulex_edge.quant.quantizer import quantize
from diffulex_edge.quant.schemes import find_scheme
from diffulex_edge.runtime.text import prompt_ids, text_plan
from diffulex_edge.text.corpus import read_documents
from diffulex_edge.tuning.calibrate import calibrate

Names = Literal["dynamic_int8", "static_int8", "weight_only_int8", "weight_only_int4", "dynamic_int4", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Writes a model in fewer bits as a folder that --ckpt takes, unless it loses more than the budget allows."""

    output: Annotated[Path, tyro.conf.Positional]  # folder that is written, or replaced
    ckpt: str = SHIPPED  # a run or checkpoint folder, the shipped model's name, or OWNER/NAME of a pulled one
    scheme: Names = "dynamic_int8"  # how many bits weights and activations have; static_int8 is calibrated
    embedding_bits: int | None = None  # of the token embedding: 4, 8 or 32; None: the scheme's
    group: int | None = None  # neighbouring 4-bit weights that share a scale, a multiple of 32; None: the scheme's
    data: tuple[Path, ...] = ()  # held-out documents that both models are judged on
    calibration_data: tuple[Path, ...] = ()  # documents that static ranges are seen on; none: what the model writes
    calibration_documents: int = 16  # of these, at most
    budget: float | None = None  # share of bits a character that may be lost; None: 0.01 for 8 bits, 0.05 for 4
    force: bool = False  # write it whatever it loses, and where there is no data to judge it on
    parity: ParityConfig = ParityConfig()
    threads: int | None = None  # None: one a core or one alone, as is faster now
    json: str | None = None  # write the result as JSON to this path; - for standard output


def run(flags: Flags) -> dict[str, Any]:
    scheme = find_scheme(flags.scheme, flags.embedding_bits, flags.group)
    if not flags.data and not flags.force:
        raise UsageError("--data names documents to judge the result on; --force writes it without")
    set_threads(flags.threads)
    denoiser, tokenizer = load(flags.ckpt)
    seen = None
    if scheme.calibrated:
        texts = [tokenizer.encode(document.text) for document in read_documents(flags.calibration_data)]
        prompts = [prompt_ids(tokenizer, prompt) for prompt in PROMPTS]
        plan = text_plan(denoiser, tokenizer, None)
        seen = calibrate(denoiser, prompts, plan, texts[: flags.calibration_documents])
    made = quantize(denoiser, scheme, seen)
    result: dict[str, Any] = {"scheme": scheme.name, "embedding_bits": scheme.embedding_bits, "group": scheme.group}
    if flags.data:
        result |= parity(denoiser, made, tokenizer, list(read_documents(flags.data)), flags.parity)
        console(flags.json).print(parity_table(result))
        if not flags.force:
            gate(result, budget_of(scheme) if flags.budget is None else flags.budget)
    written = write_quantized(flags.output, made, scheme, source_of(flags.ckpt), tokenizer.fingerprint)
    result |= sizes(denoiser, written)
    told = f"{flags.output}: {written / 1e6:.2f} MB of weights, {result['of_fp32']:.3f} of those in fp32"
    console(flags.json).print(told, markup=False)
    return result
