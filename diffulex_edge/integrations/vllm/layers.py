"""The layer loop with a cascade in it: what the plug-in's classes run in place of vLLM's own `forward`.

What is known of each token goes from layer to layer as a value, `Tokens`, and lives for one forward only; so batches,
chunks of a prompt and preemption need no care. Functions of modules, not methods: vLLM's compiler keeps no closures.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffulex_edge.integrations.vllm.probes import Probe
from diffulex_edge.sedac.tensors import TensorLayer, TensorStep, begin, step


class Tokens(NamedTuple):
    """n tokens on their way through the layers."""

    state: TensorStep
    blocks: Tensor  # (n,) int32: of the feed-forwards to come


class RiskProbe(nn.Module):
    """What one layer says of the risk, in float32: h (n, D) -> (n,) in [0, 1]."""

    weight: Tensor
    bias: Tensor

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.register_buffer("weight", probe.weight, persistent=False)
        self.register_buffer("bias", probe.bias, persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        return torch.sigmoid(h.float() @ self.weight + self.bias)


class Checkpoint(nn.Module):
    """Behind one layer: the risk of each token, the cascade's step, and the blocks that are left to it."""

    def __init__(self, probe: Probe, numbers: TensorLayer, n_blocks: int, soft: bool) -> None:
        super().__init__()
        self.risk, self.n_blocks, self.soft = RiskProbe(probe), n_blocks, soft
        for name, value in numbers._asdict().items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, h: Tensor, tokens: Tokens) -> Tokens:
        numbers = TensorLayer(*(getattr(self, name) for name in TensorLayer._fields))
        state = step(tokens.state.confidence, tokens.state.exited, self.risk(h), numbers, self.soft)
        return Tokens(state, ((1.0 - state.ratio) * self.n_blocks).ceil().int())


def layer_forward(
    self: Any, positions: Tensor, hidden_states: Tensor, residual: Tensor | None, tokens: Tokens
) -> tuple[Tensor, Tensor, Tokens]:
    """A decoder layer of Qwen2 or Llama: hidden_states and residual (n, D), whose sum is the residual stream."""
    if residual is None:
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
    else:
        hidden_states, residual = self.input_layernorm(hidden_states, residual)
    hidden_states = self.self_attn(positions=positions, hidden_states=hidden_states)
    hidden_states, residual = self.post_attention_layernorm(hidden_states, residual)
    hidden_states = self.mlp(hidden_states) if self.soft_mlp is None else self.soft_mlp(hidden_states, tokens.blocks)
    if self.checkpoint is not None:
        tokens = self.checkpoint(hidden_states + residual, tokens)
    return hidden_states, residual, tokens


def model_forward(
    self: Any,
    input_ids: Tensor | None,
    positions: Tensor,
    intermediate_tensors: Any = None,
    inputs_embeds: Tensor | None = None,
) -> Tensor:
    """All layers on one machine: what pipelines and drafts would need is refused when the model is built."""
    hidden_states = self.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds
    state = begin(hidden_states[:, 0])
    tokens, residual = Tokens(state, state.exited.int()), None
    for layer in islice(self.layers, self.start_layer, self.end_layer):
        hidden_states, residual, tokens = layer(positions, hidden_states, residual, tokens)
    hidden_states, _ = self.norm(hidden_states, residual)
    found: Tensor = hidden_states
    return found
