"""The context of a pass: what a model is given beside the tokens.

Two kinds: a `KVCache` holds the keys and values of earlier positions; `Documents` keeps packed documents apart.

Shapes: B rows, H heads, T positions of this pass, S keys, D size of a head.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from glassgpt.models.attention import causal_mask


class Context(Protocol):
    """What a model asks of its `cache` argument: a `KVCache`, or the `Documents` of packed rows."""

    @property
    def mask(self) -> Tensor | None:
        """(B, 1, T, S) booleans, True where a query may look at a key; None where causality alone decides."""

    def positions(self, n_tokens: int, device: torch.device) -> Tensor:
        """The positions of the tokens of this pass, (T,) or (B, T)."""

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values that the queries of `layer` look at, given those of this pass."""

    def advance(self, n_tokens: int) -> None:
        """Says that the pass is over."""


class KVCache:
    """Keys and values of every layer for the first `length` positions, up to `block_size`: what attention has computed
    before, so that a new token costs one row.

    A model appends its layers' new keys and values, and calls `advance` once at the end of a pass. Memory is taken on
    first use, (B, H, block_size, D) for each of k and v and layer, and then stays.
    """

    mask = None

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.length = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def positions(self, n_tokens: int, device: torch.device) -> Tensor:
        """(T,): the new tokens follow those that are stored."""
        return torch.arange(self.length, self.length + n_tokens, device=device)

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


class Documents:
    """Given to a model in the place of its cache: no position attends across the start of a document.

    A document starts at its eot_id, the end-of-text token, and at the start of a row. Positions count from there, so
    every document gets the logits that it would get in a row of its own. The prediction of a eot_id is the end of
    the document before it, so no target crosses a boundary either.
    """

    def __init__(self, tokens: Tensor, eot_id: int) -> None:
        self._separate(tokens == eot_id)

    @classmethod
    def from_starts(cls, starts: Tensor) -> Documents:
        """Documents that begin where `starts` (B, T) is True, whatever their first token."""
        documents = cls.__new__(cls)
        documents._separate(starts)
        return documents

    def _separate(self, starts: Tensor) -> None:
        index = torch.arange(starts.size(1), device=starts.device)
        self._positions = index - (index * starts).cummax(dim=1).values
        number = starts.cumsum(dim=1)
        same = number.unsqueeze(2) == number.unsqueeze(1)  # (B, T, T)
        self.mask = (same & causal_mask(len(index), len(index), starts.device)).unsqueeze(1)  # (B, 1, T, T)

    def positions(self, n_tokens: int, device: torch.device) -> Tensor:
        """(B, T): how far each token is into its document."""
        return self._positions

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k and v as they are: nothing came before this pass."""
        return k, v

    def advance(self, n_tokens: int) -> None:
        """Nothing is kept for a next pass."""
