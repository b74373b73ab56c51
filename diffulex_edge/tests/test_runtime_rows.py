"""A batch decodes as its rows alone do: every open family, every context that it has, prompts of different lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import diffulex_edge
from diffulex_edge.runtime.decode import Finished, decode
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.reveal import RevealAbove, RevealTop
from diffulex_edge.tests import family_toys as toys

WIDE, GRID = ("canvas", "dual", "prefix", "full"), ("kv", "full")
CONTEXTS = {"llada": WIDE, "dream": WIDE, "sdar": GRID, "fast_dllm_v2": GRID}
CASES = [(name, kind) for name, kinds in CONTEXTS.items() for kind in kinds]
PROMPTS = [[(7 * i + 11 * n) % 250 for i in range(length)] for n, length in enumerate((1, 5, 8, 19, 24))]


def tokens(denoiser: Any, prompts: list[list[int]], plan: Plan) -> list[list[int]]:
    *_, finished = decode(denoiser, prompts, plan)
    assert isinstance(finished, Finished)
    return finished.tokens


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_each_row_of_a_batch_is_decoded_as_alone(name: str, kind: str, blocks: int, tmp_path: Path) -> None:
    family = toys.FAMILIES[name]
    denoiser, _ = diffulex_edge.load(toys.write_folder(tmp_path, family, toys.hub_model(family, seed=5)))
    assert set(denoiser.spec.contexts) == set(CONTEXTS[name])
    size = blocks * (denoiser.spec.block_length or 8)
    for reveal in (RevealTop(), RevealAbove(0.3)):
        plan = Plan(context=kind, block_size=size, steps=4, max_new_tokens=2 * size + 3, reveal=reveal, stop_ids=(9,))
        assert tokens(denoiser, PROMPTS, plan) == [tokens(denoiser, [prompt], plan)[0] for prompt in PROMPTS]
