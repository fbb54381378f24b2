"""Batches of token windows, without loader state: the rows of a step are a pure function of (seed, step).

Row r of step s is sample i = s · batch_rows + r. A sample is a complete window of block_size + 1 ids. An epoch draws a
phase, 0 ≤ phase < block_size. It visits each window that starts at phase + k · block_size once, in the order of a
keyed permutation. Ranks and micro-batches take row ranges of the global batch.

Phases are drawn without replacement. A cycle of epochs uses each phase once, so it visits the window at every position
of the text once. All cycles have the same length, so any step is found directly, in constant memory.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassgpt.data.permutation import Permutation
from glassgpt.data.shards import TokenArray
from glassgpt.errors import UserError


class Loader:
    """Batches of `batch_rows` windows of `tokens`. Raises UserError for a text shorter than one window."""

    def __init__(self, tokens: TokenArray, block_size: int, batch_rows: int, seed: int = 0) -> None:
        if block_size < 1 or batch_rows < 1:
            raise UserError(f"block_size and batch_rows must be at least 1, not {block_size} and {batch_rows}")
        if len(tokens) <= block_size:
            raise UserError(
                f"the text is too short: it has {len(tokens):,} tokens, and one window of block_size {block_size:,} "
                f"needs {block_size + 1:,}; give a longer text or a smaller block_size"
            )
        self.tokens = tokens
        self.block_size = block_size
        self.batch_rows = batch_rows
        self.seed = seed

    def rows(self, step: int, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """Rows `start` to `stop` of the global batch of `step`: inputs and targets, each (rows, block_size) int64.

        All rows by default. Any split into ranges gives the same rows.
        """
        stop = self.batch_rows if stop is None else stop
        if step < 0 or not 0 <= start <= stop <= self.batch_rows:
            raise IndexError(f"rows {start} to {stop} of step {step}, where a batch has {self.batch_rows} rows")
        first = step * self.batch_rows
        windows = np.empty((stop - start, self.block_size + 1), np.int64)
        for row, position in enumerate(self._positions(first + start, first + stop)):
            windows[row] = self.tokens.slice(position, position + self.block_size + 1)
        batch = torch.from_numpy(windows)
        return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()

    def _positions(self, first: int, last: int) -> list[int]:
        """Start positions in the text of the windows of samples `first` to `last`."""
        positions: list[int] = []
        while first < last:
            epoch = find_epoch(len(self.tokens), self.block_size, self.seed, first)
            end = min(last, epoch.first + epoch.n_windows)
            positions += epoch.positions(first, end).tolist()
            first = end
        return positions


@dataclass(frozen=True)
class Epoch:
    """One pass over the complete windows of one phase."""

    first: int  # number of its first sample, counted from the start of training
    n_windows: int
    phase: int
    block_size: int
    order: Permutation

    def positions(self, first: int, last: int) -> NDArray[np.int64]:
        """Start positions in the text of the windows of samples `first` to `last`, all within this epoch."""
        windows = self.order(np.arange(first - self.first, last - self.first))
        return self.phase + windows * self.block_size


def find_epoch(n_tokens: int, block_size: int, seed: int, sample: int) -> Epoch:
    """The epoch to which `sample` belongs."""
    n_starts = n_tokens - block_size  # windows of a cycle: one for each id that is followed by block_size ids or more
    cycle, offset = divmod(sample, n_starts)
    firsts = _draw_cycle(n_tokens, block_size, seed, cycle)[1]
    return _epoch(n_tokens, block_size, seed, cycle, bisect_right(firsts, offset) - 1)


# The two caches below hold values that can be computed again: they are not loader state.


@lru_cache(maxsize=64)
def _epoch(n_tokens: int, block_size: int, seed: int, cycle: int, number: int) -> Epoch:
    phases, firsts = _draw_cycle(n_tokens, block_size, seed, cycle)
    n_starts = n_tokens - block_size
    return Epoch(
        first=cycle * n_starts + firsts[number],
        n_windows=(n_tokens - 1 - phases[number]) // block_size,
        phase=phases[number],
        block_size=block_size,
        order=Permutation((n_tokens - 1 - phases[number]) // block_size, "windows", seed, cycle, number),
    )


@lru_cache(maxsize=8)
def _draw_cycle(n_tokens: int, block_size: int, seed: int, cycle: int) -> tuple[list[int], list[int]]:
    """The phase of each epoch of a cycle, in order, and its first sample, counted within the cycle."""
    # A text of fewer than two windows has phases without a complete window; they are not drawn.
    n_phases = min(block_size, n_tokens - block_size)
    phases = Permutation(n_phases, "phases", seed, cycle)(np.arange(n_phases))
    n_windows = (n_tokens - 1 - phases) // block_size
    return phases.tolist(), (np.cumsum(n_windows) - n_windows).tolist()
