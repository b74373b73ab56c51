"""How the makers of a family decode it: rule, quota, block and steps of their own generation scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffulex_edge.model.base import Denoiser, DenoiserSpec
from diffulex_edge.model.dream_edge import DreamEdge
from diffulex_edge.model.fast_dllm_v2_edge import FastdLLMV2Edge
from diffulex_edge.model.llada_edge import LLaDAEdge
from diffulex_edge.model.sdar_edge import SDAREdge
from diffulex_edge.runtime.confidence import AsDrawn, negative_entropy
from diffulex_edge.runtime.guidance import Guided
from diffulex_edge.runtime.penalty import Penalised
from diffulex_edge.runtime.plan import Plan, plan_for
from diffulex_edge.runtime.quota import EvenSplit, OneByOne, Proportional
from diffulex_edge.runtime.reveal import RevealAbove, RevealTop
from diffulex_edge.runtime.sampler import Categorical, Sampler
from diffulex_edge.runtime.sub_blocks import SubBlocks

Fields = dict[str, Any]  # of Plan


def official_plan(denoiser: Denoiser, **wishes: Any) -> Plan:
    """The plan of the denoiser's makers with the fields that are wished for; a wish of None is none.

    The sampler is greedy unless wished otherwise. Any other denoiser is decoded as it was trained, `plan_for`.
    """
    while isinstance(denoiser, (Guided, Penalised)):
        denoiser = denoiser.denoiser
    given = {name: value for name, value in wishes.items() if value is not None}
    own = _RULES.get(type(denoiser), _trained)(denoiser.spec, Plan(**given))
    return plan_for(denoiser.spec, **{**own, **given})


def _trained(spec: DenoiserSpec, wished: Plan) -> Fields:
    return {}


def _llada(spec: DenoiserSpec, wished: Plan) -> Fields:
    """A token a step, the surest of its block: arXiv:2502.09992."""
    return {"context": "canvas", "quota": EvenSplit(), "reveal": RevealTop(), "block_size": 32, "steps": 32}


def _dream(spec: DenoiserSpec, wished: Plan) -> Fields:
    """The answer as one block, as many steps as tokens, the lowest entropy first: arXiv:2508.15487."""
    length = max(1, wished.max_new_tokens)
    reveal = RevealTop(score=_entropy(wished.sampler))
    return {"context": "canvas", "quota": Proportional(), "reveal": reveal, "block_size": length, "steps": length}


def _entropy(sampler: Sampler) -> Callable[..., Any]:
    return AsDrawn(negative_entropy, sampler) if isinstance(sampler, Categorical) else negative_entropy


def _sdar(spec: DenoiserSpec, wished: Plan) -> Fields:
    """All above 0.85, and at least the quota: arXiv:2510.06303, low_confidence_dynamic."""
    return {"context": "kv", "quota": EvenSplit(), "reveal": RevealAbove(0.85), "steps": spec.block_length}


def _fast_dllm_v2(spec: DenoiserSpec, wished: Plan) -> Fields:
    """All above 0.9, and at least one, in sub-blocks of 8: arXiv:2509.26328."""
    reveal = SubBlocks(RevealAbove(0.9), 8)
    return {"context": "kv", "quota": OneByOne(), "reveal": reveal, "steps": spec.block_length}


_RULES: dict[type, Callable[[DenoiserSpec, Plan], Fields]] = {
    LLaDAEdge: _llada,
    DreamEdge: _dream,
    SDAREdge: _sdar,
    FastdLLMV2Edge: _fast_dllm_v2,
}
