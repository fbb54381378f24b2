"""The key-value cache: what attention has computed for the positions before, so that a new token costs one row."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer for the first `length` positions, up to `block_size`.

    A model appends its layers' new keys and values, and calls `advance` once at the end of a pass. Memory is taken on
    first use, (B, H, block_size, D) for each of k and v and layer, and then stays.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.length = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores k and v (B, H, T, D) of the T new positions; returns those of all length + T positions."""
        end = self.length + k.size(-2)
        if end > self.block_size:
            raise ValueError(f"{end} positions do not fit into a cache of block_size {self.block_size}")
        if layer not in self._layers:
            B, H, _, D = k.shape
            room = torch.empty(2, B, H, self.block_size, D, dtype=k.dtype, device=k.device)
            self._layers[layer] = (room[0], room[1])
        keys, values = self._layers[layer]
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, n_tokens: int) -> None:
        """Says that a whole pass over `n_tokens` new positions is stored in every layer."""
        self.length += n_tokens
