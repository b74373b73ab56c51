"""Dream and DiffuCoder, arXiv:2508.15487: Qwen2's network, looking everywhere; state i - 1 speaks of token i."""

from __future__ import annotations

from dataclasses import dataclass

from diffulex_edge.model.attention import AttentionDenoiser, Shifted
from diffulex_edge.model.llama import LlamaSizes, network
from diffulex_edge.model.published import Published
from diffulex_edge.model.qwen import QwenConfig


@dataclass(frozen=True, kw_only=True)
class DreamEdgeConfig(QwenConfig):
    """Dream-7B is 152064, 3584, 28 layers, 28 heads, 4, 18944."""

    max_position_embeddings: int = 2048  # tokens it was trained for; its config.json says 131072, and is believed


class DreamEdge(AttentionDenoiser):
    """A Denoiser. Contexts: canvas; dual and prefix, its approximate caches; full."""

    def __init__(self, config: DreamEdgeConfig = DreamEdgeConfig()) -> None:
        super().__init__(*network(sizes(config), Shifted()))
        self.config = config


def sizes(config: DreamEdgeConfig) -> LlamaSizes:
    return config.sizes(qkv_bias=True, head_norms=False, block_length=None)


PUBLISHED = Published(
    only={},
    ignored=frozenset({"mask_token"}),
    code=frozenset({"configuration_dream.DreamConfig", "modeling_dream.DreamModel", "modeling_dream.DreamBaseModel"}),
)
