"""The suite `seeds`: the experiments that seeds 000 and 002 ask for, and the comparisons that their verdict needs.

One table of jobs, models first. EcoHybrid is `eco`, the bidirectional Transformer denoiser `transformer`, the
autoregressive one `causal`; all of as many parameters, trained on the same tokens in the same order.
"""

from __future__ import annotations

from dataclasses import replace

from diffulex_edge.api import SHIPPED
from diffulex_edge.bench.variants import PROGRAMS
from diffulex_edge.runtime.depth import ConstantDepth, DepthSchedule, LinearDepth, SandwichDepth
from diffulex_edge.suite.comparisons import PROMPTS, Comparison, Entrant
from diffulex_edge.suite.jobs import Job
from diffulex_edge.suite.probes import Recall, Step
from diffulex_edge.suite.trainings import Likelihood, Training
from diffulex_edge.suite.workplace import SuiteConfig
from diffulex_edge.train.recipe import RECIPES

SEEDS = (0, 1, 2)
FAMILIES = {"eco": "primary", "transformer": "backup", "causal": "causal"}
SLOTS, SLOTS_SHARE = (16, 8, 32), 3  # trained for a third of the steps, and compared among themselves
LENGTH, RIVALS = "length-", "rivals-"  # rows of EcoHybrid's own modes at a length, and of it beside other models
LENGTHS = (256, 512, 1024, 2048, 4096)
ECO, TRANSFORMER, CAUSAL = "eco-s0", "transformer-s0", "causal-s0"
BASELINE, CHALLENGER, RIVAL = "transformer, prefix cache", "eco, block_frozen", "causal, kv cache"


def jobs(config: SuiteConfig) -> list[Job]:
    """All rows of the suite, in an order in which each has what it needs."""
    models = trainings(config)
    toys = (Recall(seed) for seed in SEEDS)
    return [*models, *(Likelihood(model.name) for model in models), *toys, Step(), *comparisons(config)]


def trainings(config: SuiteConfig) -> list[Training]:
    recipe = config.suite_recipe
    steps = config.suite_steps or RECIPES[recipe]().max_steps
    found = [
        Training(f"{name}-s{seed}", recipe, steps, model, seed) for seed in SEEDS for name, model in FAMILIES.items()
    ]
    short = max(1, steps // SLOTS_SHARE)
    return found + [Training(f"eco-m{m}-s0", recipe, short, changes={"memory_slots": m}) for m in SLOTS]


def comparisons(config: SuiteConfig) -> list[Comparison]:
    """Around one setting: mode block_frozen, 12 steps for each block of 32 tokens, fp32, all layers."""
    plain = Entrant(title="block_frozen", model=ECO)
    rows = {
        "modes": (_eco("block", mode="block"), _eco("full", mode="full"), plain),
        "steps": tuple(_eco(f"{steps} steps", steps=steps) for steps in (12, 4, 6, 8, 16)),
        "block-size": tuple(_eco(f"blocks of {size}", block_size=size) for size in (32, 64, 96)),
        "number-type": tuple(_eco(name, number_type=name) for name in ("fp32", "bf16", "int8")),
        "depth": (_eco("all layers"), *(_eco(title, depth=depth) for title, depth in depths().items())),
        "confidence-stop": (
            _eco("no confidence_stop"),
            *(_eco(f"confidence_stop {p}", confidence_stop=p) for p in (0.95, 0.98, 0.99)),
        ),
        "slots": tuple(Entrant(title=f"{m} slots", model=f"eco-m{m}-s0") for m in SLOTS),
    }
    found = [Comparison(name=name, entrants=sides, rounds=config.suite_rounds) for name, sides in rows.items()]
    found += [
        Comparison(name=f"script-{script}", entrants=_rivals(), script=script, rounds=config.suite_rounds)
        for script in ("devanagari", "roman", "mixed")
    ]
    found.append(Comparison(name="engines-1024", entrants=_engines(), new_tokens=1024, rounds=config.suite_rounds))
    return [*found, *(_length(n, config) for n in LENGTHS), *(_rivals_at(n, config) for n in LENGTHS)]


def depths() -> dict[str, DepthSchedule]:
    schedules = {"linear": LinearDepth, "sandwich": SandwichDepth, "constant": ConstantDepth}
    return {f"{name} from {least} layers": make(least) for name, make in schedules.items() for least in (2, 4)}


def _eco(title: str, **settings: object) -> Entrant:
    return Entrant(title=title, model=ECO, **settings)  # type: ignore[arg-type]


def _engines() -> tuple[Entrant, ...]:
    """The shipped model in the engines that run it: text that grows is compiled for no length, and has no program."""
    base = Entrant(title="block", model=SHIPPED, mode="block", steps=8)
    frozen = replace(base, title="block_frozen", mode="block_frozen")
    programs = (replace(frozen, title=f"block_frozen, {program}", program=program) for program in PROGRAMS)
    return (base, frozen, replace(frozen, title="block_frozen, compiled", compiled=True), *programs)


def _rivals(steps: int = 12) -> tuple[Entrant, ...]:
    """The Transformer denoiser with its prefix cache first: it is what the verdict compares with."""
    return (
        Entrant(title=BASELINE, model=TRANSFORMER, mode="prefix", steps=steps),
        Entrant(title=CHALLENGER, model=ECO, steps=steps),
        Entrant(title=RIVAL, model=CAUSAL, mode="kv"),
    )


def _length(new_tokens: int, config: SuiteConfig) -> Comparison:
    """Modes of one checkpoint, 4 tokens a step in all.

    Those without a cache take minutes for long texts, so there no side is warmed up, and each prompt is decoded once;
    of the longest, one prompt.
    """
    modes = ("block", "full", "block_frozen")
    long = new_tokens > 1024
    return Comparison(
        name=f"{LENGTH}{new_tokens}",
        entrants=tuple(_eco(f"eco, {mode}", mode=mode, steps=8) for mode in modes),
        new_tokens=new_tokens,
        rounds=1 if long else config.suite_rounds,
        prompts=PROMPTS[:1] if new_tokens == max(LENGTHS) else PROMPTS,
        warm_ups=0 if long else 1,
    )


def _rivals_at(new_tokens: int, config: SuiteConfig) -> Comparison:
    """4 tokens a step for the denoisers; and EcoHybrid at other steps, one of which is as good as the causal model."""
    others = tuple(_eco(f"{CHALLENGER}, {steps} steps", steps=steps) for steps in (4, 12, 16))
    return Comparison(
        name=f"{RIVALS}{new_tokens}",
        entrants=(*_rivals(8), *others),
        new_tokens=new_tokens,
        rounds=config.suite_rounds,
    )
