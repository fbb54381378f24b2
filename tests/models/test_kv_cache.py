"""The key-value cache keeps what it was given, in order, and says when it is full."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.models.context import KVCache


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 3))
@settings(max_examples=20)
def test_it_returns_all_so_far_of_each_layer(chunks: list[int], n_layer: int) -> None:
    keys = torch.randn(n_layer, 2, 3, sum(chunks), 4, generator=torch.Generator().manual_seed(0))
    values = -keys
    cache = KVCache(block_size=sum(chunks))
    for n_tokens in chunks:
        new = slice(cache.length, cache.length + n_tokens)
        for layer in range(n_layer):
            k, v = cache.append(layer, keys[layer, :, :, new], values[layer, :, :, new])
            assert torch.equal(k, keys[layer, :, :, : new.stop])
            assert torch.equal(v, values[layer, :, :, : new.stop])
        cache.advance(n_tokens)
    assert cache.length == sum(chunks)


def test_more_than_block_size_does_not_fit() -> None:
    cache = KVCache(block_size=3)
    rows = torch.zeros(1, 1, 2, 4)
    cache.append(0, rows, rows)
    cache.advance(2)
    with pytest.raises(ValueError, match="4 positions do not fit into a cache of block_size 3"):
        cache.append(0, rows, rows)
    assert cache.length == 2


def test_memory_is_taken_once() -> None:
    cache = KVCache(block_size=64)
    places = set()
    for _ in range(64):
        k, _ = cache.append(0, torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4))
        cache.advance(1)
        places.add(k.untyped_storage().data_ptr())
    assert len(places) == 1
