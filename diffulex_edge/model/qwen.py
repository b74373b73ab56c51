"""What the configs of the Qwen line have in common: Dream, SDAR and Fast-dLLM v2 write config.json in these words."""

from __future__ import annotations

from dataclasses import dataclass

from diffulex_edge.model.llama import LlamaSizes, fitting, ids_of


@dataclass(frozen=True, kw_only=True)
class QwenConfig:
    """The sizes default to a toy. A mask id that is not in the vocabulary becomes its last id."""

    vocab_size: int = 4096
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int | None = None  # None: hidden_size / num_attention_heads
    intermediate_size: int = 704
    max_position_embeddings: int = 32768  # tokens
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    tie_word_embeddings: bool = False
    mask_token_id: int = 151666
    eos_token_id: int | tuple[int, ...] = 151643

    def sizes(self, *, qkv_bias: bool, head_norms: bool, block_length: int | None) -> LlamaSizes:
        return LlamaSizes(
            vocab_size=self.vocab_size,
            mask_id=fitting(self.mask_token_id, self.vocab_size),
            width=self.hidden_size,
            n_layers=self.num_hidden_layers,
            n_heads=self.num_attention_heads,
            n_kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim or self.hidden_size // max(1, self.num_attention_heads),
            d_ff=self.intermediate_size,
            eps=self.rms_norm_eps,
            rope_theta=self.rope_theta,
            qkv_bias=qkv_bias,
            head_norms=head_norms,
            tied=self.tie_word_embeddings,
            block_length=block_length,
            max_length=self.max_position_embeddings,
            stop_ids=ids_of(self.eos_token_id, self.vocab_size),
        )
