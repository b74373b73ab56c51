"""Weights, decay and routes of a cascade, learned end to end from what probes said: seed 004's future work 1 to 3.

Behind every checkpoint the cascade's confidence has to tell tokens that would not change from those that would. All of
controller.py's recursion is differentiated but its clamps' flat parts. What is learned is a setting like any other:
`sedac calibrate --learned` chooses the scale of the thresholds for it, and tests the promise on other texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffulex_edge.runtime.cascading import Cascading
from diffulex_edge.sedac.probe import auroc
from diffulex_edge.sedac.tensors import TensorLayer, begin, step
from diffulex_edge.tuning.states import States

STEPS, RATE = 300, 0.03  # of Adam, over all tokens at once
NEVER = torch.tensor(torch.inf)  # the confidence at which a token exits


def risks_of(states: States, probes: Mapping[int, Any]) -> Tensor:
    """What the probes say of the states, (n, checkpoints)."""
    return torch.stack(
        [probe(states.layers[i].x.float(), states.masked, states.t) for i, probe in sorted(probes.items())], 1
    )


def confidence(risk: Tensor, masked: Tensor, kind: Tensor, scale: float, numbers: Mapping[str, Tensor]) -> Tensor:
    """C (n, K) behind each checkpoint of risks (n, K), of tokens that never exit.

    masked (n,); kind (n,). numbers: weights (K,), decay (), fade (), routes (kinds + 1,).
    """
    threshold = scale * numbers["routes"][kind]
    decay = numbers["decay"] * (1 - numbers["fade"] * masked)
    state, found = begin(masked), []
    for column, weight in zip(risk.unbind(1), numbers["weights"], strict=True):
        layer = TensorLayer(threshold, weight, NEVER, decay)
        state = step(state.confidence, state.exited, column, layer, soft=False)
        found.append(state.confidence)
    return torch.stack(found, 1)


def learn_cascade(learn: States, judge: States, probes: Mapping[int, Any], kinds: int) -> dict[str, Any]:
    """Numbers for `Cascading`, learned on `learn` from the defaults on; and how both rank the tokens of `judge`.

    kinds: the highest kind of a token. The thresholds are the share of tokens that would change. Routes are relative
    to that of kind 0, which is 1.
    """
    plain = Cascading()
    risk, changed = risks_of(learn, probes), _changed(learn, probes)
    scale = float(changed.float().mean())
    free = {
        "weights": torch.full((len(probes),), plain.weight).log(),
        "decay": torch.tensor(plain.decay).logit(),
        "fade": torch.tensor(0.1).logit(),
        "routes": torch.zeros(kinds),
        "slope": torch.tensor(2.0),
    }
    optimiser = torch.optim.Adam([value.requires_grad_() for value in free.values()], lr=RATE)
    with torch.enable_grad():
        for _ in range(STEPS):
            found = confidence(risk, learn.masked, learn.kind, scale, _numbers(free))
            safe = free["slope"].exp() * (found - plain.exit_confidence)
            loss = F.binary_cross_entropy_with_logits(safe, (~changed).float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    numbers = {name: value.detach() for name, value in _numbers(free).items()}
    default = {"weights": torch.full((len(probes),), plain.weight), "decay": torch.tensor(plain.decay)}
    default |= {"fade": torch.tensor(0.0), "routes": torch.ones(kinds + 1)}
    told, held = risks_of(judge, probes), _changed(judge, probes)
    ranks = {
        name: auroc(-confidence(told, judge.masked, judge.kind, scale, each).flatten(), held.flatten())
        for name, each in (("default", default), ("learned", numbers))
    }
    return {"numbers": {name: value.tolist() for name, value in numbers.items()}, "auroc": ranks}


def _numbers(free: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights above 0, decay and fade from 0 to 1, routes above 0."""
    return {
        "weights": free["weights"].exp(),
        "decay": free["decay"].sigmoid(),
        "fade": free["fade"].sigmoid(),
        "routes": torch.cat((torch.ones(1), free["routes"].exp())),
    }


def _changed(states: States, probes: Mapping[int, Any]) -> Tensor:
    """(n, checkpoints)"""
    return torch.stack([states.layers[i].changed for i in sorted(probes)], 1)
