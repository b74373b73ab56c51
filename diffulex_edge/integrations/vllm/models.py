"""The two architectures, built over vLLM's own classes when vLLM asks for one by name.

A subclass of a layer, of a model and of an architecture: what is not of SEDAC stays vLLM's. Nothing is patched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.integrations.vllm.hooks import MODELS, check_hooks, vllm_module
from diffulex_edge.integrations.vllm.layers import Checkpoint, layer_forward, model_forward
from diffulex_edge.integrations.vllm.probes import read_probes
from diffulex_edge.integrations.vllm.settings import SECTION, SedacSettings
from diffulex_edge.integrations.vllm.soft_mlp import SoftMLP, define_op
from diffulex_edge.sedac.tensors import tensor_layers


@dataclass(frozen=True, kw_only=True)
class Family:
    """Where vLLM keeps the classes of a model family."""

    module: str
    layer: str
    model: str
    layer_argument: str  # by which the model takes its layer class


FAMILIES = {
    "SedacQwen2ForCausalLM": Family(
        module="qwen2", layer="Qwen2DecoderLayer", model="Qwen2Model", layer_argument="decoder_layer_type"
    ),
    "SedacLlamaForCausalLM": Family(
        module="llama", layer="LlamaDecoderLayer", model="LlamaModel", layer_argument="layer_type"
    ),
}


def __getattr__(name: str) -> Any:
    if name not in FAMILIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return build(name)


@cache
def build(name: str) -> type:
    """The class of an architecture. Raises BackendUnavailable, in one line, where vLLM is absent or has changed."""
    vllm_module("vllm")
    check_hooks()
    family, llama = FAMILIES[name], vllm_module(f"{MODELS}.llama")
    stock = vllm_module(f"{MODELS}.{family.module}")
    layer_type = soft_layer(getattr(stock, family.layer))
    model_type = type(f"Sedac{family.model}", (getattr(stock, family.model),), {"forward": model_forward})

    class SedacForCausalLM(llama.LlamaForCausalLM):  # type: ignore[name-defined, misc]
        """Llama's is the one that lets its model be chosen; around the model both families are alike."""

        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            refuse(vllm_config)
            define_op()
            super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=layer_type)
            add_checkpoints(self.model.layers, vllm_config.model_config)

        def _init_model(self, vllm_config: Any, prefix: str = "", layer_type: type = layer_type) -> Any:
            return model_type(vllm_config=vllm_config, prefix=prefix, **{family.layer_argument: layer_type})

        def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
            loaded: set[str] = super().load_weights(weights)
            pack(self.model.layers)
            return loaded

    SedacForCausalLM.__name__ = SedacForCausalLM.__qualname__ = name
    return SedacForCausalLM


def soft_layer(stock: type) -> type:
    """A decoder layer whose feed-forward is cut into blocks, if a checkpoint comes before it."""
    from vllm.config import get_current_vllm_config
    from vllm.model_executor.models.utils import extract_layer_index

    class SedacDecoderLayer(stock):  # type: ignore[valid-type, misc]
        def __init__(self, *given: Any, prefix: str = "", **named: Any) -> None:
            super().__init__(*given, prefix=prefix, **named)
            config = get_current_vllm_config()
            settings = settings_of(config.model_config)
            self.checkpoint = self.soft_mlp = None
            if extract_layer_index(prefix) > settings.checkpoints[0].layer_idx:
                name = f"{prefix}.soft_mlp"
                self.soft_mlp = config.compilation_config.static_forward_context[name] = SoftMLP(name, settings.blocks)

        forward = layer_forward

    return SedacDecoderLayer


def settings_of(model_config: Any) -> SedacSettings:
    """The settings of a model, as its config.json and `hf_overrides` have them."""
    return SedacSettings.read(getattr(model_config.hf_config, SECTION, None))


def add_checkpoints(layers: Any, model_config: Any) -> None:
    """Puts the probes of the model's folder behind their layers."""
    settings, config = settings_of(model_config), model_config.hf_config
    settings.check(config.num_hidden_layers, config.intermediate_size)
    cascade = tensor_layers(settings.controller())
    probes = read_probes(model_config.model, settings.probes, tuple(cascade), config.hidden_size)
    for i, numbers in cascade.items():
        layers[i].checkpoint = Checkpoint(probes[i], numbers, settings.blocks, settings.soft_exit)


def pack(layers: Any) -> None:
    """Cuts the feed-forwards that may shrink into packed blocks and drops them whole, before vLLM packs the rest."""
    for layer in layers:
        if layer.soft_mlp is not None:
            layer.soft_mlp.pack(layer.mlp.gate_up_proj.weight.data, layer.mlp.down_proj.weight.data)
            del layer.mlp


REFUSED: Mapping[str, Callable[[Any], bool]] = {
    "another device than the CPU": lambda c: c.device_config.device_type != "cpu",
    "tensor parallelism: a rank's first channels are not the model's": lambda c: (
        c.parallel_config.tensor_parallel_size > 1
    ),
    "pipeline parallelism": lambda c: c.parallel_config.pipeline_parallel_size > 1,
    "quantised weights": lambda c: c.quant_config is not None,
    "LoRA": lambda c: c.lora_config is not None,
    "speculative decoding": lambda c: c.speculative_config is not None,
    "feed-forwards with a bias": lambda c: getattr(c.model_config.hf_config, "mlp_bias", False),
    "a model that is not in a folder on this machine": lambda c: not Path(c.model_config.model).is_dir(),
}


def refuse(vllm_config: Any) -> None:
    """Raises UsageError for what the plug-in does not do."""
    for what, asked in REFUSED.items():
        if asked(vllm_config):
            raise UsageError(f"SEDAC's plug-in for vLLM does not do {what}")
