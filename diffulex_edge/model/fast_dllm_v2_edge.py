"""Fast-dLLM v2, arXiv:2509.26328: Qwen2's network, block-causal; state i - 1 of a block speaks of token i."""

from __future__ import annotations

from dataclasses import dataclass

from diffulex_edge.model.attention import AttentionDenoiser, ShiftedInBlock
from diffulex_edge.model.llama import LlamaSizes, network
from diffulex_edge.model.published import Published
from diffulex_edge.model.qwen import QwenConfig


@dataclass(frozen=True, kw_only=True)
class FastdLLMV2EdgeConfig(QwenConfig):
    """The 1.5B is 151936, 1536, 28 layers, 12 heads, 2, 8960."""

    bd_size: int = 32  # tokens that see each other
    tie_word_embeddings: bool = True
    mask_token_id: int = 151665
    eos_token_id: int | tuple[int, ...] = 151645


class FastdLLMV2Edge(AttentionDenoiser):
    """A Denoiser. Contexts: kv, exact; full. The pass that remembers a block decides how the next begins."""

    def __init__(self, config: FastdLLMV2EdgeConfig = FastdLLMV2EdgeConfig()) -> None:
        super().__init__(*network(sizes(config), ShiftedInBlock()))
        self.config = config


def sizes(config: FastdLLMV2EdgeConfig) -> LlamaSizes:
    return config.sizes(qkv_bias=True, head_norms=False, block_length=config.bd_size)


PUBLISHED = Published(
    only={},
    ignored=frozenset({"small_block_size"}),
    code=frozenset({"configuration.Fast_dLLM_QwenConfig", "modeling.Fast_dLLM_QwenForCausalLM"}),
)
