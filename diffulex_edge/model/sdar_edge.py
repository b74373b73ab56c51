"""SDAR, arXiv:2510.06303: Qwen3's network, block-causal in small blocks; state i speaks of token i."""

from __future__ import annotations

from dataclasses import dataclass

from diffulex_edge.model.attention import AttentionDenoiser, Unshifted
from diffulex_edge.model.llama import LlamaSizes, network
from diffulex_edge.model.published import Published
from diffulex_edge.model.qwen import QwenConfig


@dataclass(frozen=True, kw_only=True)
class SDAREdgeConfig(QwenConfig):
    """SDAR-1.7B is 151936, 2048, 28 layers, 16 heads, 8, 128, 6144."""

    block_size: int = 4  # tokens that see each other
    mask_token_id: int = 151669
    eos_token_id: int | tuple[int, ...] = (151645, 151643)


class SDAREdge(AttentionDenoiser):
    """A Denoiser. Contexts: kv, exact; full."""

    def __init__(self, config: SDAREdgeConfig = SDAREdgeConfig()) -> None:
        super().__init__(*network(sizes(config), Unshifted()))
        self.config = config


def sizes(config: SDAREdgeConfig) -> LlamaSizes:
    return config.sizes(qkv_bias=False, head_norms=True, block_length=config.block_size)


PUBLISHED = Published(
    only={"attention_bias": (False,)},
    ignored=frozenset({"debug", "fuse_cross_entropy"}),
    code=frozenset({"configuration_sdar.SDARConfig", "modeling_sdar.SDARForCausalLM", "modeling_sdar.SDARModel"}),
)
