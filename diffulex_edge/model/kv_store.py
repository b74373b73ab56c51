"""`KVCache`: seed 003's static cache as an object. One tensor, of which the buffers of a KVContext are views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from diffulex_edge.errors import UsageError
from diffulex_edge.model.kv_cache import KVContext, KVLayer


@dataclass(frozen=True, kw_only=True)
class KVCacheConfig:
    """The shape of a cache."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    max_seq_len: int  # tokens that it can hold
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_kv_heads", "head_dim", "max_seq_len"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")


class KVCache:
    """Keys and values of a batch in one tensor (N, 2, B, H, T, E); a denoiser reads and writes it through `context`."""

    def __init__(self, config: KVCacheConfig, batch_size: int = 1, *, device: torch.device | str = "cpu") -> None:
        shape = (config.num_layers, 2, batch_size, config.num_kv_heads, config.max_seq_len, config.head_dim)
        self.config = config
        self.current_seq_len = 0  # tokens remembered; after a commit take it from the context that came back
        self._tensor = torch.zeros(shape, dtype=config.dtype, device=device)

    @classmethod
    def from_tensor(cls, tensor: Tensor, current_seq_len: int = 0) -> Self:
        """A cache over the tensor (N, 2, B, H, T, E) itself, which holds so many tokens already."""
        if tensor.dim() != 6 or tensor.shape[1] != 2:
            raise UsageError(f"a cache of shape {tuple(tensor.shape)}: (N, 2, B, H, T, E) is needed")
        n_layers, _, batch_size, n_heads, length, head_dim = tensor.shape
        if not 0 <= current_seq_len <= length:
            raise UsageError(f"{current_seq_len=} does not fit into {length} columns")
        config = KVCacheConfig(
            num_layers=n_layers, num_kv_heads=n_heads, head_dim=head_dim, max_seq_len=length, dtype=tensor.dtype
        )
        cache = cls(config, batch_size, device="meta")
        cache._tensor, cache.current_seq_len = tensor, current_seq_len
        return cache

    @property
    def context(self) -> KVContext:
        """What a denoiser with contexts of kind `kv` takes: the same buffers, from the current length on."""
        return KVContext(self._tensor[:, 0], self._tensor[:, 1], self.current_seq_len)

    def get_cache_tensor(self) -> Tensor:
        """The tensor itself (N, 2, B, H, T, E)."""
        return self._tensor

    def get_layer_cache(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, T, E) of one layer, as views; only the first current_seq_len columns mean anything."""
        keys, values = self._tensor[layer].unbind(0)
        return keys, values

    def update_layer_cache(self, layer: int, new_k: Tensor, new_v: Tensor, start_pos: int) -> None:
        """Writes keys and values (B, H, L, E) of one layer from column start_pos on."""
        end = start_pos + new_k.shape[2]
        if not 0 <= start_pos <= end <= self.config.max_seq_len:
            raise UsageError(f"columns {start_pos} to {end} are not within max_seq_len={self.config.max_seq_len}")
        keys, values = self.get_layer_cache(layer)
        KVLayer(keys, values, start_pos).put(new_k, new_v)
        self.current_seq_len = max(self.current_seq_len, end)

    def clear(self) -> None:
        """Forgets the text, and overwrites it with zeros."""
        self._tensor.zero_()
        self.current_seq_len = 0


def create_kv_caches(config: KVCacheConfig, batch_size: int = 1, *, device: torch.device | str = "cpu") -> KVCache:
    """Empty caches of all layers, in one object."""
    return KVCache(config, batch_size, device=device)
