"""Seed 003's KVCache: the buffers of a KVContext by another name."""

from __future__ import annotations

import pytest
import torch

from diffulex_edge.errors import UsageError
from diffulex_edge.model.base import NONE
from diffulex_edge.model.kv_cache import KVContext
from diffulex_edge.model.kv_store import KVCache, KVCacheConfig, create_kv_caches
from diffulex_edge.tests.toys import BACKUP, backup, ids

CONFIG = KVCacheConfig(
    num_layers=BACKUP.n_layers, num_kv_heads=BACKUP.n_heads, head_dim=BACKUP.head_dim, max_seq_len=24
)


def test_a_cache_is_one_tensor_of_the_shape_that_was_asked_for() -> None:
    cache = KVCache(CONFIG, batch_size=5)
    assert cache.get_cache_tensor().shape == (3, 2, 5, 2, 24, 16)
    assert cache.get_cache_tensor().dtype == torch.float32
    assert cache.current_seq_len == 0
    assert create_kv_caches(CONFIG, 5).get_cache_tensor().shape == (3, 2, 5, 2, 24, 16)


def test_layers_are_views_and_written_where_they_are_told_to_be() -> None:
    cache = KVCache(CONFIG, batch_size=2)
    k, v = torch.randn(2, 2, 2, 4, 16, generator=torch.Generator().manual_seed(0))
    cache.update_layer_cache(1, k, v, start_pos=6)
    tensor = cache.get_cache_tensor()
    assert torch.equal(tensor[1, 0, :, :, 6:10], k)
    assert torch.equal(tensor[1, 1, :, :, 6:10], v)
    assert tensor.count_nonzero() == k.numel() + v.numel()
    assert cache.current_seq_len == 10
    keys, values = cache.get_layer_cache(1)
    assert keys.data_ptr() == tensor[1, 0].data_ptr()
    assert torch.equal(values[:, :, 6:10], v)
    cache.update_layer_cache(0, k, v, start_pos=0)
    assert cache.current_seq_len == 10


def test_a_tensor_may_be_looked_at_as_a_cache() -> None:
    tensor = torch.ones(3, 2, 1, 2, 24, 16, dtype=torch.bfloat16)
    cache = KVCache.from_tensor(tensor, 7)
    assert cache.get_cache_tensor() is tensor
    assert (cache.config.max_seq_len, cache.config.dtype, cache.current_seq_len) == (24, torch.bfloat16, 7)
    cache.clear()
    assert tensor.count_nonzero() == 0
    assert cache.current_seq_len == 0


def test_a_denoiser_works_on_the_cache_through_its_context() -> None:
    model, prompt, block = backup(block_length=4), ids(2, 8), ids(2, 4, seed=1)
    cache = KVCache(CONFIG, batch_size=2)
    _, seen = model(prompt, cache.context, rows=NONE)
    assert isinstance(seen, KVContext)
    cache.current_seq_len = seen.length
    _, own = model(prompt, model.begin("kv", 2, 24), rows=NONE)
    torch.testing.assert_close(model(block, cache.context)[0], model(block, own)[0])
    torch.testing.assert_close(cache.get_layer_cache(2)[0][:, :, :8], own.keys[2][:, :, :8])


def test_what_does_not_fit_is_refused_with_its_value() -> None:
    cache, k = KVCache(CONFIG), torch.zeros(1, 2, 4, 16)
    for start in (-1, 21):
        with pytest.raises(UsageError, match=f"columns {start} to {start + 4}"):
            cache.update_layer_cache(0, k, k, start)
    with pytest.raises(UsageError, match="num_layers=0"):
        KVCacheConfig(num_layers=0, num_kv_heads=1, head_dim=1, max_seq_len=1)
    with pytest.raises(UsageError, match=r"\(3, 3\)"):
        KVCache.from_tensor(torch.zeros(3, 3))
    with pytest.raises(UsageError, match="current_seq_len=25"):
        KVCache.from_tensor(torch.zeros(3, 2, 1, 2, 24, 16), 25)
