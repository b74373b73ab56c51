"""The transformers library's class of a family with our weights in it: the baseline of a step's time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffulex_edge.errors import BackendUnavailable
from diffulex_edge.model.attention import AttentionDenoiser
from diffulex_edge.model.llama import LlamaSizes
from diffulex_edge.model.published import TensorNames, places


def twin_step(denoiser: AttentionDenoiser, sizes: LlamaSizes, context: Tensor, block: Tensor) -> Callable[[], Tensor]:
    """One denoise step of the class, eager: block (1, L) against its own cache of context (1, S), logits of all of it.

    The step's keys are taken out of the cache again, as the library's own decoding of such models does.
    """
    try:
        import transformers
    except ImportError as error:
        raise BackendUnavailable("the comparison needs transformers: pip install transformers") from error
    model = _twin(transformers, denoiser, sizes)
    cache = transformers.DynamicCache(config=model.config)
    length, width = context.shape[1], block.shape[1]
    sees = torch.zeros(1, 1, width, length + width, dtype=next(model.parameters()).dtype)
    positions = torch.arange(length, length + width)[None]
    alike = sees[:, :, :1, :length].expand(1, 1, length, -1)  # the context is one block
    with torch.inference_mode():
        model(context, past_key_values=cache, attention_mask=alike, use_cache=True)

    @torch.inference_mode()
    def step() -> Tensor:
        out = model(block, past_key_values=cache, attention_mask=sees, position_ids=positions, use_cache=True)
        cache.crop(-width)
        logits: Tensor = out.logits
        return logits

    return step


def _twin(transformers: Any, denoiser: AttentionDenoiser, sizes: LlamaSizes) -> Any:
    line = "Qwen3" if sizes.head_norms else "Qwen2" if sizes.qkv_bias else "Llama"
    config = getattr(transformers, f"{line}Config")(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.width,
        num_hidden_layers=sizes.n_layers,
        num_attention_heads=sizes.n_heads,
        num_key_value_heads=sizes.n_kv_heads,
        head_dim=sizes.head_dim,
        intermediate_size=sizes.d_ff,
        rms_norm_eps=sizes.eps,
        rope_theta=sizes.rope_theta,
        tie_word_embeddings=sizes.tied,
        max_position_embeddings=sizes.max_length,
    )
    parameters = dict(denoiser.named_parameters())
    model = getattr(transformers, f"{line}ForCausalLM")(config).to(next(iter(parameters.values())).dtype).eval()
    values = {
        name: parameters[place.parameter].detach()[place.start : place.start + place.n]
        for name, place in places(sizes, TensorNames()).items()
    }
    missing, unknown = model.load_state_dict(values, strict=False)
    assert not unknown and set(missing) <= {"lm_head.weight"}
    return model.requires_grad_(False)
