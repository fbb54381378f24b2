"""KV cache and attention-mask context: what a forward pass gets in addition to the tokens.

There are two kinds here. A `KVCache` stores the keys and values of earlier positions. `Documents` masks attention
between packed documents; in models/block_masks.py it has a counterpart for GPUs.

Shapes: B rows, H key/value heads, T positions of this pass, S keys, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from glassgpt.models.attention import Mask, causal_mask, window_mask

GROWTH = 64  # positions for which a KV cache takes more memory at a time, at least


class Context(Protocol):
    """The interface of a model's `context` argument.

    A forward pass calls `positions`, then `append` in every layer, then `advance` once at the end. A model that looks
    at earlier ids, too, calls `preceding` before that.
    """

    def positions(self, n_tokens: int, device: torch.device) -> Tensor:
        """The positions of the tokens of this pass, (T,) or (B, T)."""

    def preceding(self, tokens: Tensor, count: int) -> Tensor:
        """The tokens (B, T) of this pass after the `count` ids before them: (B, count + T).

        Whether there were as many is for `positions` to say: in front of position 0 stand zeros, or other ids.
        """

    def append(
        self, layer: int, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> tuple[Tensor, Tensor, Mask | None]:
        """Takes k and v (B, H, T, D) of this pass; returns all keys and values (B, H, S, D) for `layer`, and a mask.

        The mask is for `Attention`, broadcast to (B, 1, T, S); it is None if the causal mask is enough. With a
        `window`, a query attends only to the last `window` positions, including its own.
        """

    def advance(self, n_tokens: int) -> None:
        """Ends the pass: the next one starts `n_tokens` positions later."""


class KVCache:
    """Keys and values of all positions so far in every layer, up to `block_size`.

    With it, a new token needs only its own query, key and value. Rows may have different lengths: run right-padded
    prompts, `truncate` the padding, and continue. Rows can come and go between two passes: `join` adds those of another
    cache, `remove` takes one out.

    With `rolling`, a row goes on past `block_size`, one token at a time: a new position takes the place of the oldest
    one, so that each position attends to the last `block_size` (sliding-window attention, Beltagy et al. 2020). This is
    right only for a model with `relative_positions`, as all others have no positions past `block_size`.

    Memory is (`max_rows`, H, positions, D) for each of k and v in each layer. It grows with the longest row, and is not
    freed: memory for the whole window would scatter short rows over it, which makes them slower to read. Without
    `max_rows` there is room for the rows of the first pass.
    """

    def __init__(self, block_size: int, max_rows: int | None = None, *, rolling: bool = False) -> None:
        self.block_size = block_size
        self.max_rows = max_rows
        self.rolling = rolling
        self.n_rows = 0
        self.length = 0  # of the longest row, with the positions that have rolled out
        self.lengths: Tensor | None = None  # (B,) if rows differ; None if all rows have `length`
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._once: dict[int, tuple[Tensor, Tensor]] = {}
        self._ids: Tensor | None = None  # (rows, block_size), if the model looks at earlier ids
        self._masks: dict[tuple[int, int | None], Tensor] = {}  # of this pass: layers with the same window share one

    def positions(self, n_tokens: int, device: torch.device) -> Tensor:
        """Positions of the new tokens, after the stored ones: (T,), or (B, T) if row lengths differ."""
        if self.lengths is None:
            return torch.arange(self.length, self.length + n_tokens, device=device)
        return self.lengths[:, None] + torch.arange(n_tokens, device=device)

    def preceding(self, tokens: Tensor, count: int) -> Tensor:
        """See `Context`. Stores the ids, so a model must call it in every pass or in none."""
        B, T = tokens.shape
        self._check_room(T)
        if self._ids is None:
            self._ids = tokens.new_zeros(self.max_rows or B, self.block_size + count)
        ids, size = self._ids[:B], self._ids.size(1)
        first = self.positions(T, tokens.device)[..., :1].expand(B, 1)  # (B, 1): where each row goes on
        before = first + torch.arange(-count, 0, device=tokens.device)
        earlier = ids.gather(1, before.clamp(min=0) % size)
        ids.scatter_(1, (first + torch.arange(T, device=tokens.device)) % size, tokens)
        return torch.cat([earlier, tokens], dim=1)

    def append(
        self, layer: int, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Context`. Raises ValueError if there would be more than `block_size` positions, or for other rows."""
        B, T = k.size(0), k.size(2)
        end = self._check_room(T)
        if not self._layers:
            self.n_rows = B
        if self.n_rows != B:
            raise ValueError(f"a pass of {B} rows does not fit a cache of {self.n_rows} rows")
        S = min(end, self.block_size)
        keys, values = self._rows(layer, k, S)
        if self.lengths is None and (end == S or window is None):
            start = self.length % self.block_size  # position p is stored in column p modulo block_size
            keys[:, :, start : start + T] = k
            values[:, :, start : start + T] = v
            mask = window_mask(T, end, window, k.device)
        else:
            positions = self.positions(T, k.device).expand(B, T)
            rows, columns = torch.arange(B, device=k.device)[:, None], positions % self.block_size
            keys[rows, :, columns] = k.transpose(1, 2)
            values[rows, :, columns] = v.transpose(1, 2)
            if (T, window) not in self._masks:
                distance = positions[:, None, :, None] - torch.arange(S, device=k.device)  # (B, 1, T, S)
                near = distance % self.block_size < (window or self.block_size)
                self._masks[T, window] = (distance >= 0) & near
            mask = self._masks[T, window]
        return keys[:, :, :S], values[:, :, :S], mask

    def once(self, layer: int, build: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Keys and values of `layer` that are the same in every pass, as those of a source: `build` is called once.

        They do not count as positions, and belong to the rows of the first pass: such a cache cannot `join` another.
        """
        if layer not in self._once:
            self._once[layer] = build()
        return self._once[layer]

    def advance(self, n_tokens: int) -> None:
        """Ends a pass: its `n_tokens` new positions are now stored in every layer."""
        self._masks.clear()
        self.length += n_tokens
        if self.lengths is not None:
            self.lengths = self.lengths + n_tokens

    def truncate(self, lengths: Tensor) -> None:
        """Keeps the first `lengths` (B,) positions of each row and drops the rest.

        Raises ValueError for a length that is negative or greater than the row's, and for a row that has rolled.
        """
        stored = self._stored()
        rolled = (stored > self.block_size) & (lengths < stored)
        if bool((lengths < 0).any()) or bool((lengths > stored).any()) or bool(rolled.any()):
            raise ValueError(f"cannot truncate rows of {stored.tolist()} positions to {lengths.tolist()}")
        self._set_lengths(lengths)

    def join(self, other: KVCache) -> None:
        """Adds copies of the rows of `other` after the last row. Raises ValueError if there is no room for them."""
        first, end = self.n_rows, self.n_rows + other.n_rows
        if self.max_rows is None or end > self.max_rows or other.length > self.block_size:
            raise ValueError(f"{end} rows of up to {other.length} positions do not fit into this cache")
        added = other._stored()
        lengths = torch.cat([self._stored().to(added.device), added])
        self.n_rows = end
        if other._ids is not None:
            if self._ids is None:
                added_room = other._ids.size(1) - other.block_size
                self._ids = other._ids.new_zeros(self.max_rows, self.block_size + added_room)
            self._ids[first:end, : other.length] = other._ids[: other.n_rows, : other.length]
        for layer, parts in other._layers.items():
            for mine, theirs in zip(self._rows(layer, parts[0], other.length), parts, strict=True):
                mine[first:, :, : other.length] = theirs[: other.n_rows, :, : other.length]
        self._set_lengths(lengths)

    def remove(self, row: int) -> None:
        """Removes a row. The last row takes its place."""
        last = self.n_rows - 1
        lengths = self._stored().clone()
        lengths[row] = lengths[last]
        if self._ids is not None:
            self._ids[row] = self._ids[last]
        for parts in self._layers.values():
            for stored in parts if row != last else ():
                stored[row, :, : self.length] = stored[last, :, : self.length]
        self.n_rows = last
        self._set_lengths(lengths[:last])

    def _check_room(self, n_tokens: int) -> int:
        """The length after a pass of so many tokens. Raises ValueError if they do not fit."""
        end = self.length + n_tokens
        if end > self.block_size and not (self.rolling and n_tokens == 1):
            raise ValueError(f"{end} positions do not fit into a cache of block_size {self.block_size}")
        return end

    def _rows(self, layer: int, like: Tensor, needed: int) -> tuple[Tensor, Tensor]:
        """The memory of the rows that are stored, with room for `needed` positions, like k and v (B, H, T, D)."""
        held = self._layers.get(layer)
        if held is None or held[0].size(2) < needed:
            rows, (_, H, _, D) = self.max_rows or self.n_rows, like.shape
            room = min(self.block_size, needed + max(GROWTH, needed // 4))
            # Zeros, as a masked position has the weight 0, and 0 × NaN from unused memory would still be NaN.
            grown = torch.zeros(2, rows, H, room, D, dtype=like.dtype, device=like.device)
            for new, old in zip(grown, held or (), strict=False):
                new[: self.n_rows, :, : old.size(2)] = old[: self.n_rows]
            self._layers[layer] = (grown[0], grown[1])
        keys, values = self._layers[layer]
        return keys[: self.n_rows], values[: self.n_rows]

    def _stored(self) -> Tensor:
        """How many positions each row has, (B,)."""
        if self.lengths is not None:
            return self.lengths
        device = next(iter(self._layers.values()))[0].device if self._layers else None
        return torch.full((self.n_rows,), self.length, device=device)

    def _set_lengths(self, lengths: Tensor) -> None:
        self._masks.clear()
        self.length = int(lengths.max()) if len(lengths) else 0
        self.lengths = None if bool((lengths == self.length).all()) else lengths


class Documents:
    """Document mask: a position attends only within its own document.

    A document starts at an eot_id or at the start of a row. The eot_id is end-of-text, or the token that begins
    documents in its place. Positions count from there, so each document gets the same logits as in a row of its own.
    Predicting an eot_id means predicting the end of the previous document, so no target crosses a document boundary
    either.

    The masks are computed once for all layers. For a model with banded layers, `window` is the width of the band.
    """

    def __init__(self, tokens: Tensor, eot_id: int, window: int | None = None) -> None:
        self._set_starts(tokens == eot_id, window)

    @classmethod
    def from_starts(cls, starts: Tensor) -> Documents:
        """Documents that start where `starts` (B, T) is True, whatever their first token is."""
        documents = cls.__new__(cls)
        documents._set_starts(starts, None)
        return documents

    def _set_starts(self, starts: Tensor, window: int | None) -> None:
        T = starts.size(1)
        self._positions, number = count_documents(starts)
        same = number.unsqueeze(2) == number.unsqueeze(1)  # (B, T, T)
        self.mask = (same & causal_mask(T, T, starts.device)).unsqueeze(1)  # (B, 1, T, T)
        near = window_mask(T, T, window, starts.device)
        self._window, self._windowed = window, self.mask if near is None else near & self.mask

    def positions(self, n_tokens: int, device: torch.device) -> Tensor:
        """(B, T): the position of each token within its document."""
        return self._positions

    def preceding(self, tokens: Tensor, count: int) -> Tensor:
        """See `Context`: the ids before a token are those of its row."""
        return F.pad(tokens, (count, 0))

    def append(self, layer: int, k: Tensor, v: Tensor, *, window: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns k and v unchanged (there are no earlier positions), and the mask (B, 1, T, T)."""
        if window == self._window:
            return k, v, self._windowed
        near = window_mask(k.size(-2), k.size(-2), window, k.device)
        return k, v, self.mask if near is None else near & self.mask

    def advance(self, n_tokens: int) -> None:
        """Does nothing: no state is carried to the next pass."""


def count_documents(starts: Tensor) -> tuple[Tensor, Tensor]:
    """For `starts` (B, T), True where a document starts: each token's position within its document, and its number."""
    index = torch.arange(starts.size(1), device=starts.device)
    return index - (index * starts).cummax(dim=1).values, starts.cumsum(dim=1)
