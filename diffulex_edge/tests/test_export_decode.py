"""A text decoded by a program is the eager model's text, whether the reveal is inside of it or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import DenoiserSpec
from diffulex_edge.runtime.decode import decode, finish
from diffulex_edge.runtime.diffusion import DiffusionEngine, DiffusionGenerationConfig
from diffulex_edge.runtime.engine import GenerationConfig, InferenceEngine
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.pte import PteDenoiser
from diffulex_edge.runtime.reveal import RevealAbove, RevealFactor, RevealTop
from diffulex_edge.runtime.sampler import Categorical
from diffulex_edge.tests import export_toys as toys

pytestmark = pytest.mark.export
CALM = DiffusionGenerationConfig(max_new_tokens=9, temperature=0, block_size=toys.BLOCK)
COLD = GenerationConfig(max_new_tokens=9, temperature=0, block_size=toys.BLOCK)
PLAN = Plan(max_new_tokens=13, block_size=toys.BLOCK, steps=4)
PLANS = {
    "top": PLAN,
    "above": replace(PLAN, reveal=RevealAbove(0.05)),
    "factor": replace(PLAN, reveal=RevealFactor(4.0)),
    "drawn": replace(PLAN, sampler=Categorical(temperature=1.0), reveal=RevealTop()),
    "banned": replace(PLAN, banned=(5, 6, 7, 8)),
}


def tokens(denoiser: object, prompt: list[int], plan: Plan) -> list[int]:
    done = finish(decode(denoiser, [prompt], plan))  # type: ignore[arg-type]
    return done.tokens[0]


@pytest.mark.parametrize("name", toys.KINDS)
def test_the_text_is_that_of_the_eager_model(name: str) -> None:
    denoiser, calls = PteDenoiser(toys.program(name).path, threads=1), []
    inside = denoiser.reveal
    denoiser.reveal = lambda *a, **k: calls.append(1) or inside(*a, **k)  # type: ignore[method-assign, func-returns-value]
    for kind in denoiser.kinds:
        for title, plan in PLANS.items():
            calls.clear()
            for length in (2, 3, 8, 11, *[17][: kind != "dual"]):  # without text all is alike, and rounding decides
                prompt = toys.toys.ids(1, length, length)[0].tolist()
                asked = replace(plan, context=kind)
                assert tokens(denoiser, prompt, asked) == tokens(eager(name), prompt, asked), (kind, title, length)
            assert bool(calls) == (title in ("top", "above")), title


def eager(name: str) -> object:
    """With the program's grid, by which prompts are cut into blocks."""
    model = toys.model(name)
    if model.spec.block_length in (None, toys.BLOCK):
        return model
    return OnGrid(model)


class OnGrid:
    """A denoiser whose blocks begin on the program's grid."""

    def __init__(self, model: object) -> None:
        self.model = model
        self.spec: DenoiserSpec = replace(model.spec, block_length=toys.BLOCK)  # type: ignore[attr-defined]
        self.begin = model.begin  # type: ignore[attr-defined]

    def __call__(self, *args: object, **named: object) -> object:
        return self.model(*args, **named)  # type: ignore[operator]


def test_the_engines_take_a_program() -> None:
    path, prompt = toys.program("eco").path, toys.toys.ids(1, 5)[0].tolist()
    model, whole = toys.model("eco"), DiffusionEngine.from_pte(path)
    assert whole.generate(prompt, CALM) == DiffusionEngine.from_model(model).generate(prompt, CALM)
    ours = InferenceEngine.from_pte(path)
    assert ours.generate(prompt, COLD) == InferenceEngine.from_model(model).generate(prompt, COLD)
    with pytest.raises(UsageError, match="one text at a time"):
        ours.generate([prompt, prompt], COLD)
