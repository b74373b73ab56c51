"""The Kotlin loop on the JVM: the golden texts, with programs that play back what the real ones did, call by call."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from diffulex_edge.export.pack import PROGRAM, PROMPTS
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.pte import PteDenoiser
from diffulex_edge.runtime.reveal import RevealAbove
from diffulex_edge.runtime.text import prompt_ids, text_plan
from diffulex_edge.tests import pack_toys
from diffulex_edge.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.native
BUILT = Path(os.environ.get("DIFFULEX_KOTLIN", Path(__file__).parents[2] / "build/kotlin"))


def play(folder: Path, recorded: Path) -> subprocess.CompletedProcess[str]:
    command = [
        "java",
        "-cp",
        f"{BUILT / 'classes'}:{BUILT / 'lib'}/*",
        "edge.diffulex.GoldenKt",
        str(folder),
        str(recorded),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def recording(denoiser: PteDenoiser, calls: list[dict[str, Any]]) -> None:
    """Writes down each call of the program from now on."""
    call = denoiser.program.call

    def recorded(name: str, *inputs: Tensor) -> list[Any]:
        outputs = call(name, *inputs)
        given, found = ([value.flatten().tolist() for value in values] for values in (inputs, outputs))
        calls.append({"method": name, "inputs": given, "outputs": found})
        return outputs

    denoiser.program.call = recorded  # type: ignore[method-assign]


def record(folder: Path) -> dict[str, Any]:
    denoiser, words = PteDenoiser(folder / PROGRAM, threads=1), load_tokenizer(folder)
    calls: list[dict[str, Any]] = []
    recording(denoiser, calls)
    texts = []
    for i, prompt in enumerate([*PROMPTS, ""]):
        plan: Plan = text_plan(denoiser, words, plan_for(denoiser.spec, steps=4, max_new_tokens=5 + 7 * i))
        plan = replace(plan, reveal=RevealAbove(0.01)) if i % 2 else plan
        dual = i % 3 == 2 and "dual" in denoiser.kinds
        plan = replace(plan, context="dual") if dual else plan
        ids = prompt_ids(words, prompt)
        calls.clear()
        tokens = finish(decode(denoiser, [ids], plan)).tokens[0]
        about = {"prompt": prompt, "ids": ids, "max_new_tokens": plan.max_new_tokens, "tokens": tokens}
        texts.append({**about, "threshold": 0.01 if i % 2 else 2.0, "dual": dual, "calls": list(calls)})
    return {"texts": texts}


@pytest.mark.parametrize("context", pack_toys.MODELS)
def test_the_golden_texts_call_by_call(context: str, tmp_path: Path) -> None:
    folder, recorded = pack_toys.pack(context), tmp_path / "recorded.json"
    said = record(folder)
    recorded.write_text(json.dumps(said))
    done = play(folder, recorded)
    assert (done.returncode, done.stdout.strip()) == (0, f"{len(PROMPTS) + 1} golden texts"), done.stderr
    said["texts"][0]["tokens"][0] += 1
    recorded.write_text(json.dumps(said))
    assert play(folder, recorded).returncode == 1, "a golden text that differs is noticed"
