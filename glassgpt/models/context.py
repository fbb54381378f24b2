"""The context of a pass: what a model is given beside the tokens.

Two kinds: a `KVCache` holds the keys and values of earlier positions; `Documents` keeps packed documents apart.

Shapes: B rows, H heads of keys and values, T positions of this pass, S keys, D size of a head.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from glassgpt.models.attention import causal_mask, window_mask


class Context(Protocol):
    """What a model asks of its `context` argument.

    A pass asks for the positions, appends the keys and values of every layer, and calls `advance` once at its end.
    """

    def positions(self, n_tokens: int, device: torch.device) -> Tensor:
        """The positions of the tokens of this pass, (T,) or (B, T)."""

    def append(
        self, layer: int, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Takes k and v (B, H, T, D) of this pass; returns all keys and values (B, H, S, D) for the queries of `layer`.

        The third is the mask for `Attention`, broadcast to (B, 1, T, S), or None where causality alone decides. With a
        `window`, a query looks at no more than the last so many positions, its own included.
        """

    def advance(self, n_tokens: int) -> None:
        """Says that the pass is over."""


class KVCache:
    """Keys and values of every layer for the positions so far, up to `block_size`: what attention has computed before,
    so that a new token costs one row.

    Rows may have different lengths: run right-padded prompts, `truncate` the padding away, and go on. Memory is taken
    on first use, (B, H, block_size, D) for each of k and v and layer, and then stays.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.length = 0  # of the longest row
        self.lengths: Tensor | None = None  # (B,) where rows differ; None where all have `length`
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def positions(self, n_tokens: int, device: torch.device) -> Tensor:
        """The new tokens follow those that are stored: (T,), or (B, T) where rows differ."""
        if self.lengths is None:
            return torch.arange(self.length, self.length + n_tokens, device=device)
        return self.lengths[:, None] + torch.arange(n_tokens, device=device)

    def append(
        self, layer: int, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Context`. Raises ValueError for more than `block_size` positions."""
        B, H, T, D = k.shape
        end = self.length + T
        if end > self.block_size:
            raise ValueError(f"{end} positions do not fit into a cache of block_size {self.block_size}")
        if layer not in self._layers:
            room = torch.empty(2, B, H, self.block_size, D, dtype=k.dtype, device=k.device)
            self._layers[layer] = (room[0], room[1])
        keys, values = self._layers[layer]
        if self.lengths is None:
            keys[:, :, self.length : end] = k
            values[:, :, self.length : end] = v
            mask = window_mask(T, end, window, k.device)
        else:
            columns = self.positions(T, k.device)  # (B, T): a position is its column
            rows = torch.arange(B, device=k.device)[:, None]
            keys[rows, :, columns] = k.transpose(1, 2)
            values[rows, :, columns] = v.transpose(1, 2)
            distance = columns[:, None, :, None] - torch.arange(end, device=k.device)  # (B, 1, T, S)
            mask = (distance >= 0) & (distance < (window or self.block_size))
        return keys[:, :, :end], values[:, :, :end], mask

    def advance(self, n_tokens: int) -> None:
        """Says that a whole pass over `n_tokens` new positions is stored in every layer."""
        self.length += n_tokens
        if self.lengths is not None:
            self.lengths = self.lengths + n_tokens

    def truncate(self, lengths: Tensor) -> None:
        """Keeps the first `lengths` (B,) positions of each row and forgets the rest.

        Raises ValueError for a length that a row does not have.
        """
        stored = torch.full_like(lengths, self.length) if self.lengths is None else self.lengths
        if bool((lengths < 0).any()) or bool((lengths > stored).any()):
            raise ValueError(f"cannot keep {lengths.tolist()} positions of rows that have {stored.tolist()}")
        self.length = int(lengths.max())
        self.lengths = None if bool((lengths == self.length).all()) else lengths
        for keys, values in self._layers.values():  # masked, but a NaN in fresh memory would spread all the same
            keys[:, :, self.length :] = 0.0
            values[:, :, self.length :] = 0.0


class Documents:
    """No position attends across the start of a document.

    A document starts at its eot_id, the end-of-text token, and at the start of a row. Positions count from there, so
    every document gets the logits that it would get in a row of its own. The prediction of an eot_id is the end of
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

    def append(self, layer: int, k: Tensor, v: Tensor, *, window: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """k and v as they are: nothing came before this pass. The mask is (B, 1, T, T)."""
        near = window_mask(k.size(-2), k.size(-2), window, k.device)
        return k, v, self.mask if near is None else near & self.mask

    def advance(self, n_tokens: int) -> None:
        """Nothing is kept for a next pass."""
