"""LLaDA (dense), arXiv:2502.09992: the Llama network, looking everywhere; state i speaks of token i."""

from __future__ import annotations

from dataclasses import dataclass

from diffulex_edge.model.attention import AttentionDenoiser, Unshifted
from diffulex_edge.model.llama import LlamaSizes, fitting, ids_of, network
from diffulex_edge.model.published import Published, TensorNames


@dataclass(frozen=True, kw_only=True)
class LLaDAEdgeConfig:
    """In the words of LLaDA's config.json; the sizes default to a toy. LLaDA-8B is 4096, 32, 32, 32, 12288, 126464."""

    d_model: int = 256
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int | None = None  # None: n_heads
    mlp_hidden_size: int = 704
    vocab_size: int = 4096
    embedding_size: int | None = None  # rows of the embedding and width of the logits; None: vocab_size
    max_sequence_length: int = 4096  # tokens
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500_000.0
    include_qkv_bias: bool = False
    weight_tying: bool = False
    mask_token_id: int = 126336  # in a smaller vocabulary: its last id
    eos_token_id: int | tuple[int, ...] = 126081


class LLaDAEdge(AttentionDenoiser):
    """A Denoiser. Contexts: canvas; dual and prefix, its approximate caches; full. A mask id that is not in the
    vocabulary becomes its last id."""

    def __init__(self, config: LLaDAEdgeConfig = LLaDAEdgeConfig()) -> None:
        super().__init__(*network(sizes(config), Unshifted()))
        self.config = config


def sizes(c: LLaDAEdgeConfig) -> LlamaSizes:
    """LLaDA's words in the network's."""
    width = c.embedding_size or c.vocab_size
    return LlamaSizes(
        vocab_size=width,
        mask_id=fitting(c.mask_token_id, width),
        width=c.d_model,
        n_layers=c.n_layers,
        n_heads=c.n_heads,
        n_kv_heads=c.n_kv_heads or c.n_heads,
        head_dim=c.d_model // max(1, c.n_heads),
        d_ff=c.mlp_hidden_size,
        eps=c.rms_norm_eps,
        rope_theta=c.rope_theta,
        qkv_bias=c.include_qkv_bias,
        head_norms=False,
        tied=c.weight_tying,
        block_length=None,
        max_length=c.max_sequence_length,
        stop_ids=ids_of(c.eos_token_id, width),
    )


_BLOCK = "model.transformer.blocks.{i}."
PUBLISHED = Published(
    names=TensorNames(
        embed="model.transformer.wte",
        norm="model.transformer.ln_f",
        head="model.transformer.ff_out",
        q=_BLOCK + "q_proj",
        k=_BLOCK + "k_proj",
        v=_BLOCK + "v_proj",
        out=_BLOCK + "attn_out",
        gate=_BLOCK + "ff_proj",
        up=_BLOCK + "up_proj",
        down=_BLOCK + "ff_out",
        attn_norm=_BLOCK + "attn_norm",
        ff_norm=_BLOCK + "ff_norm",
    ),
    only={
        "activation_type": ("silu",),
        "block_type": ("llama",),
        "block_group_size": (1,),
        "layer_norm_type": ("rms",),
        "layer_norm_with_affine": (True,),
        "bias_for_layer_norm": (False, None),
        "attention_layer_norm": (False,),
        "input_emb_norm": (False,),
        "include_bias": (False,),
        "alibi": (False,),
        "rope": (True,),
        "scale_logits": (False,),
        "multi_query_attention": (None, False),
    },
    ignored=frozenset(
        {
            "alibi_bias_max",
            "attention_layer_norm_with_affine",
            "embedding_dropout",
            "residual_dropout",
            "flash_attention",
            "init_device",
            "init_cutoff_factor",
            "init_fn",
            "init_std",
            "mlp_ratio",
            "precision",
            "rope_full_precision",
        }
    ),
    needed=frozenset({"vocab_size", "d_model", "n_layers", "n_heads", "mlp_hidden_size", "rms_norm_eps", "rope_theta"}),
    code=frozenset({"configuration_llada.LLaDAConfig", "modeling_llada.LLaDAModelLM"}),
)
