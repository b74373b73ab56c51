"""Token for token: the loop against plain sampling loops, written here after each family's published rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffulex_edge.runtime.confidence import AsDrawn, Score, margin, negative_entropy, probability
from diffulex_edge.runtime.decode import Finished
from diffulex_edge.runtime.plan import Plan
from diffulex_edge.runtime.quota import EvenSplit, OneByOne, Proportional
from diffulex_edge.runtime.reveal import RevealAbove, RevealByChance, RevealTop
from diffulex_edge.runtime.reveal_settled import Exponential, Prophet, RevealSettled, SchED
from diffulex_edge.runtime.reveal_stable import RevealStable
from diffulex_edge.runtime.sampler import Categorical
from diffulex_edge.runtime.sub_blocks import SubBlocks
from diffulex_edge.tests.runtime_toys import finish
from diffulex_edge.tests.toys import backup, ids

MASK = 3
MODEL = backup()


def logits_of(text: Tensor, sharpness: float = 1.0) -> Tensor:
    """From a text (T,) to logits (T, V) in which the mask is banned."""
    logits = MODEL(text[None])[0][0] * sharpness
    logits[:, MASK] = -torch.inf
    return logits


class Sharp:
    """The toy model with its logits multiplied: surer of itself."""

    def __init__(self, sharpness: float) -> None:
        self.spec, self.begin, self.sharpness = MODEL.spec, MODEL.begin, sharpness

    def __call__(self, *arguments, **rest):  # type: ignore[no-untyped-def]
        logits, seen = MODEL(*arguments, **rest)
        return logits * self.sharpness, seen


def masked(prompt: list[int], length: int) -> Tensor:
    return torch.tensor(prompt + [MASK] * length)


def prompts() -> list[list[int]]:
    return [ids(1, length, seed)[0].tolist() for seed, length in enumerate((5, 3, 8, 1))]


def canvas(length: int, **choices: object) -> Plan:
    return Plan(max_new_tokens=length, block_size=length, context="canvas", **choices)  # type: ignore[arg-type]


# LLaDA, arXiv:2502.09992: low_confidence, block after block, the masks behind the block in view.


def llada(prompt: list[int], length: int, block: int, steps: int) -> list[int]:
    text = masked(prompt, length)
    for start in range(len(prompt), len(text), block):
        stop = min(start + block, len(text))
        base, remainder = divmod(int((text[start:stop] == MASK).sum()), steps)
        for step in range(steps):
            sure, token = logits_of(text).softmax(-1).max(-1)
            sure = torch.where(text == MASK, sure, -torch.inf)
            sure[stop:] = -torch.inf
            for place in sure.topk(base + (step < remainder)).indices.tolist():
                text[place] = token[place]
    return text[len(prompt) :].tolist()


@pytest.mark.parametrize(("block", "steps"), [(12, 12), (12, 5), (4, 3), (4, 1), (6, 4)])
def test_llada_low_confidence(block: int, steps: int) -> None:
    plan = Plan(max_new_tokens=12, block_size=block, steps=steps, context="canvas", quota=EvenSplit())
    for prompt in prompts():
        assert finish(MODEL, [prompt], plan).tokens == [llada(prompt, 12, block, steps)]


# Dream, arXiv:2508.15487: one block, n (1 - s/t) tokens a step, times from 1 to eps.


def dream(
    prompt: list[int], length: int, steps: int, alg: str, *, seed: int = 0, draw: Categorical | None = None
) -> list[int]:
    text, times = masked(prompt, length), torch.linspace(1, 1e-3, steps + 1)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        hidden, last = text == MASK, step == steps - 1
        share = 1 - times[step + 1] / times[step]
        logits = logits_of(text)[hidden]
        p = logits.softmax(-1)
        token = p.argmax(-1)
        if draw is not None:
            p, token = draw.shape(logits).softmax(-1), draw(logits, hidden[None], generator).token
        if alg == "origin":
            luck = torch.rand(len(token), generator=generator) < (1.0 if last else share)
            text[hidden] = torch.where(luck, token, MASK)
            continue
        first, second = p.topk(2, -1).values.unbind(-1)
        sure = {
            "maskgit_plus": p.gather(1, token[:, None])[:, 0],
            "topk_margin": first - second,
            "entropy": (p * (p + 1e-10).log()).sum(-1),
        }[alg]
        spread = torch.full(text.shape, -torch.inf, dtype=sure.dtype)
        spread[hidden] = sure
        tokens = text.clone()
        tokens[hidden] = token
        count = int(hidden.sum()) if last else int(hidden.sum() * share)
        for place in spread.topk(count).indices.tolist():
            text[place] = tokens[place]
    return text[len(prompt) :].tolist()


SCORES: dict[str, Score] = {"maskgit_plus": probability, "topk_margin": margin, "entropy": negative_entropy}


@pytest.mark.parametrize("steps", [13, 7, 4, 1])
@pytest.mark.parametrize("alg", SCORES)
def test_dreams_greedy_rules(alg: str, steps: int) -> None:
    plan = canvas(13, steps=steps, quota=Proportional(), reveal=RevealTop(SCORES[alg]))
    for prompt in prompts():
        assert finish(MODEL, [prompt], plan).tokens == [dream(prompt, 13, steps, alg)]


def test_dreams_rules_differ() -> None:
    found = {alg: [dream(prompt, 13, 13, alg) for prompt in prompts()] for alg in SCORES}
    assert len({str(texts) for texts in found.values()}) == 3


@pytest.mark.parametrize("alg", SCORES)
def test_dreams_rules_at_a_temperature(alg: str) -> None:
    draw = Categorical(temperature=0.7, top_p=0.9)
    plan = canvas(13, steps=7, quota=Proportional(), reveal=RevealTop(AsDrawn(SCORES[alg], draw)), sampler=draw)
    for seed, prompt in enumerate(prompts()):
        wanted = dream(prompt, 13, 7, alg, seed=seed, draw=draw)
        assert finish(MODEL, [prompt], replace(plan, seed=seed)).tokens == [wanted]


@pytest.mark.parametrize("steps", [13, 6, 1])
def test_dreams_origin(steps: int) -> None:
    plan = canvas(13, steps=steps, reveal=RevealByChance())
    for seed, prompt in enumerate(prompts()):
        wanted = dream(prompt, 13, steps, "origin", seed=seed)
        assert finish(MODEL, [prompt], replace(plan, seed=seed)).tokens == [wanted]


# KLASS, arXiv:2511.05664: what is sure and stable, else the best; the history begins with zeros and is not yet full.


def klass(prompt: list[int], length: int, sharpness: float, sure_at: float, kl_at: float) -> tuple[list[int], int]:
    text = masked(prompt, length)
    before, history, forwards = torch.zeros(len(text), MODEL.spec.vocab_size), torch.zeros(len(text), 2), 0
    while (text == MASK).any():
        p = logits_of(text, sharpness).softmax(-1)
        kl = (p * ((p + 1e-12).log() - (before + 1e-12).log())).sum(-1)
        history, before = torch.stack((history[:, 1], kl), 1), p
        sure, token = p.max(-1)
        sure = torch.where(text == MASK, sure, -torch.inf)
        ready = (sure >= sure_at) & (history < kl_at).all(1) & (forwards >= 1)
        if not ready.any():
            ready[sure.argmax()] = True
        text, forwards = torch.where(ready, token, text), forwards + 1
    return text[len(prompt) :].tolist(), forwards


def test_klass() -> None:
    sharpness, saved = 3.0, 0
    plan = canvas(14, steps=14, quota=OneByOne(), reveal=RevealStable(0.6, kl=0.05))
    for prompt in prompts():
        done = finish(Sharp(sharpness), [prompt], plan)
        wanted, forwards = klass(prompt, 14, sharpness, 0.6, 0.05)
        assert (done.tokens, done.forwards) == ([wanted], forwards)
        saved += 14 - forwards
    assert saved > 4, "the rule showed several at once"


# Prophet, arXiv:2508.19982, and SchED, arXiv:2512.02892: LLaDA's loop, broken off when the gap is wide enough.


def settled(
    prompt: list[int], length: int, sharpness: float, needed: Callable[[float], float]
) -> tuple[list[int], int]:
    text = masked(prompt, length)
    for step in range(length):
        logits = logits_of(text, sharpness)
        sure, token = logits.softmax(-1).max(-1)
        first, second = logits[text == MASK].topk(2).values.unbind(-1)
        if (first - second).mean() >= needed(step / length):
            return torch.where(text == MASK, token, text)[len(prompt) :].tolist(), step + 1
        place = torch.where(text == MASK, sure, -torch.inf).argmax()
        text[place] = token[place]
    return text[len(prompt) :].tolist(), length


def test_prophet_and_sched() -> None:
    def phases(progress: float) -> float:
        return 7.5 if progress < 0.33 else 5.0 if progress < 0.67 else 2.5

    def curve(progress: float) -> float:
        return 7.5 * math.exp(-2 * progress)

    for rule, needed in ((Prophet(), phases), (SchED(7.5, 0.0, Exponential(2.0)), curve)):
        ends = set()
        for prompt in prompts():
            done = finish(Sharp(6.0), [prompt], canvas(14, steps=14, reveal=RevealSettled(rule), quota=OneByOne()))
            wanted, forwards = settled(prompt, 14, 6.0, needed)
            assert (done.tokens, done.forwards) == ([wanted], forwards)
            ends.add(forwards)
        assert min(ends) < 14
        assert len(ends) > 1, "settled at different moments"


# Fast-dLLM v2, arXiv:2509.26328: sub-block after sub-block, above the threshold and always the best.


def sub_blocks(prompt: list[int], length: int, size: int, sharpness: float, threshold: float) -> tuple[list[int], int]:
    text, forwards = masked(prompt, length), 0
    for start in range(len(prompt), len(text), size):
        here = slice(start, start + size)
        while (text[here] == MASK).any():
            sure, token = logits_of(text, sharpness)[here].softmax(-1).max(-1)
            sure = torch.where(text[here] == MASK, sure, -torch.inf)
            which = sure > threshold
            which[sure.argmax()] = True
            text[here] = torch.where(which & (text[here] == MASK), token, text[here])
            forwards += 1
    return text[len(prompt) :].tolist(), forwards


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_fast_dllm_v2_sub_blocks(size: int, threshold: float) -> None:
    inner = RevealTop() if threshold == 1 else RevealAbove(threshold)
    plan = canvas(16, steps=16, quota=OneByOne(), reveal=SubBlocks(inner, size))
    wanted = [sub_blocks(prompt, 16, size, 3.0, threshold) for prompt in prompts()]
    alone = [finish(Sharp(3.0), [prompt], plan) for prompt in prompts()]
    assert [(done.tokens[0], done.forwards) for done in alone] == wanted
    together: Finished = finish(Sharp(3.0), prompts(), plan)
    assert together.tokens == [tokens for tokens, _ in wanted]
    assert together.forwards == max(forwards for _, forwards in wanted), "rows do not wait for one another"
