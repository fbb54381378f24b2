"""Batches of packed examples, without loader state: the rows of a step are a pure function of (seed, step).

Each epoch visits every example once, in the order of a keyed permutation. It packs them one after another into rows of
block_size positions. An example that does not fit into the rest of a row begins the next row. An example of n ids
takes n - 1 positions: its inputs are the ids without the last, its targets the ids without the first. So no target
belongs to the next example. The document mask (`models.context.Documents`) restricts attention to one example.

Row r of step s is row s · batch_rows + r, counted over all epochs. Ranks and micro-batches take row ranges of the
global batch. Packing an epoch of n examples takes O(n) time and 8 n bytes of memory; the last packed epoch is cached.
The number of rows of an epoch is known only after packing: to find a step in epoch e, the e epochs before it are packed
once.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassgpt.data.examples import Examples
from glassgpt.data.permutation import Permutation
from glassgpt.errors import UserError

PADDING = -1  # in `ExampleRows.examples`


@dataclass(frozen=True)
class ExampleRows:
    """Packed rows (B, T). inputs and targets are int64 ids, 0 at padding; mask is True for targets to train on."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor  # booleans, False at padding
    examples: Tensor  # int64: the example number of each position, PADDING at the end of a row

    @property
    def starts(self) -> Tensor:
        """(B, T) booleans, True where an example or the padding begins: for `Documents.from_starts`."""
        starts = torch.ones_like(self.mask)
        starts[:, 1:] = self.examples[:, 1:] != self.examples[:, :-1]
        return starts

    @property
    def n_tokens(self) -> int:
        """The number of targets, including masked ones, excluding padding."""
        return int((self.examples != PADDING).sum())


class ExampleLoader:
    """Batches of `batch_rows` rows of packed examples.

    A row holds at most `block_size` + 1 ids of an example. A longer example raises UserError. With `truncate`, its
    first `block_size` + 1 ids are used instead, which may contain no target to train on.
    """

    def __init__(
        self, examples: Examples, block_size: int, batch_rows: int, seed: int = 0, *, truncate: bool = False
    ) -> None:
        if block_size < 1 or batch_rows < 1:
            raise UserError(f"block_size and batch_rows must be at least 1, not {block_size} and {batch_rows}")
        too_long = np.flatnonzero(examples.lengths > block_size + 1)
        if len(too_long) and not truncate:
            raise UserError(
                f"{len(too_long):,} of {len(examples):,} examples are too long: the first is example {too_long[0]} "
                f"with {examples.lengths[too_long[0]]:,} ids, and block_size {block_size:,} holds "
                f"{block_size + 1:,}; increase block_size, shorten the examples, or truncate them"
            )
        self.examples = examples
        self.block_size = block_size
        self.batch_rows = batch_rows
        self.seed = seed
        self._sizes = np.minimum(examples.lengths - 1, block_size)  # positions that each example takes
        # The two attributes below are caches that can be computed again, not loader state.
        self._first_rows = [0]  # first row of epochs 0, 1, … (those packed so far), counted from the start of training
        self._epoch = _Epoch(-1, np.empty(0, np.int64), np.zeros(1, np.int64))

    def rows(self, step: int, start: int = 0, stop: int | None = None) -> ExampleRows:
        """Rows `start` to `stop` of the global batch of `step`; all rows by default. Any split gives the same rows."""
        stop = self.batch_rows if stop is None else stop
        if step < 0 or not 0 <= start <= stop <= self.batch_rows:
            raise IndexError(f"rows {start} to {stop} of step {step}, where a batch has {self.batch_rows} rows")
        shape = stop - start, self.block_size
        inputs, targets = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        mask, examples = np.zeros(shape, np.bool_), np.full(shape, PADDING, np.int64)
        for row in range(stop - start):
            begin = 0
            for number in self._examples_of_row(step * self.batch_rows + start + row):
                size = self._sizes[number]
                place = row, slice(begin, begin + size)
                ids = self.examples.ids(number)
                inputs[place], targets[place] = ids[:size], ids[1 : size + 1]
                mask[place] = self.examples.mask(number)[1 : size + 1]
                examples[place] = number
                begin += size
        return ExampleRows(*map(torch.from_numpy, (inputs, targets, mask, examples)))

    def _examples_of_row(self, row: int) -> NDArray[np.int64]:
        """The numbers of the examples in a row. Rows are counted from the start of training."""
        while self._first_rows[-1] <= row:
            epoch = self._packed(len(self._first_rows) - 1)
            self._first_rows.append(self._first_rows[-1] + len(epoch.row_starts) - 1)
        number = bisect_right(self._first_rows, row) - 1
        epoch = self._packed(number)
        first, last = epoch.row_starts[row - self._first_rows[number] :][:2]
        return epoch.order[first:last]

    def _packed(self, number: int) -> _Epoch:
        if self._epoch.number != number:
            n = len(self.examples)
            order = Permutation(n, "examples", self.seed, number)(np.arange(n))
            self._epoch = _Epoch(number, order, pack_rows(self._sizes[order], self.block_size))
        return self._epoch


@dataclass(frozen=True)
class _Epoch:
    number: int
    order: NDArray[np.int64]  # (n,) example numbers
    row_starts: NDArray[np.int64]  # (rows + 1,) index into `order` where each row begins, then n


def pack_rows(sizes: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """Packs items into rows in order: the index of each row's first item, then n; (rows + 1,) int64.

    Each of the n `sizes` is at most `capacity`, the size of a row.
    """
    ends = np.cumsum(sizes)
    starts, filled = [0], 0
    while starts[-1] < len(sizes):
        starts.append(int(np.searchsorted(ends, filled + capacity, side="right")))
        filled = int(ends[starts[-1] - 1])
    return np.array(starts, np.int64)
