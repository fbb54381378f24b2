"""Batches of pairs, without loader state: the rows of a step are a pure function of (seed, step).

Shapes: B pairs, S ids of the longest source, T of the longest target, both with the stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glassgpt.data.examples import Examples
from glassgpt.data.pairs import Ends, check_lengths, split_pair
from glassgpt.data.permutation import Permutation

STEP = 8  # rows are padded to a multiple of it, so that few different shapes occur


@dataclass(frozen=True)
class PairRows:
    """A batch of pairs, padded at the end with 0. A target is predicted from the source and from the target so far."""

    source: Tensor  # (B, S) ids
    visible: Tensor  # (B, S) booleans: False at padding
    inputs: Tensor  # (B, T) ids: the start, then the target
    targets: Tensor  # (B, T) ids: the target, then the stop
    mask: Tensor  # (B, T) booleans: False at padding

    @property
    def n_tokens(self) -> int:
        """The number of targets that are no padding: the same sum for any split into micro-batches and ranks."""
        return int(self.mask.sum())

    def to(self, device: torch.device) -> PairRows:
        """The batch on a device."""
        return PairRows(
            *(part.to(device) for part in (self.source, self.visible, self.inputs, self.targets, self.mask))
        )


class PairLoader:
    """Batches of `batch_rows` pairs, without loader state: the rows of a step are a pure function of (seed, step).

    Each epoch visits every pair once, in the order of a keyed permutation. In the examples, the ids of a pair are the
    source, a stop, the target, a stop; the mask is True for the last two. Raises UserError for a pair that is longer
    than `block_size`.
    """

    def __init__(self, examples: Examples, ends: Ends, block_size: int, batch_rows: int, seed: int = 0) -> None:
        self.examples, self.ends = examples, ends
        self.block_size, self.batch_rows, self.seed = block_size, batch_rows, seed
        check_lengths(examples, block_size)

    def rows(self, step: int, start: int = 0, stop: int | None = None) -> PairRows:
        """Rows `start` to `stop` of the global batch of `step`; all rows by default."""
        stop = self.batch_rows if stop is None else stop
        if step < 0 or not 0 <= start <= stop <= self.batch_rows:
            raise IndexError(f"rows {start} to {stop} of step {step}, where a batch has {self.batch_rows} rows")
        samples = step * self.batch_rows + np.arange(start, stop)
        epochs, places = np.divmod(samples, len(self.examples))
        numbers = np.empty_like(samples)
        for epoch in np.unique(epochs):
            order = Permutation(len(self.examples), "pairs", self.seed, int(epoch))
            numbers[epochs == epoch] = order(places[epochs == epoch])
        return collate_pairs([split_pair(self.examples, int(number)) for number in numbers], self.ends, self.block_size)


def collate_pairs(
    pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], ends: Ends, block_size: int
) -> PairRows:
    """Pads pairs of ids, as `split_pair` gives them, to a batch."""
    sources, visible = _pad([source for source, _ in pairs], block_size)
    targets, mask = _pad([target for _, target in pairs], block_size)
    inputs = torch.zeros_like(targets)
    inputs[:, 0], inputs[:, 1:] = ends.start_id, targets[:, :-1]
    return PairRows(sources, visible, inputs, targets, mask)


def pad_sources(sources: Sequence[NDArray[np.int64]], ends: Ends, block_size: int) -> PairRows:
    """Sources without targets as a batch: every target is only the stop."""
    stop = np.array([ends.stop_id])
    return collate_pairs([(source, stop) for source in sources], ends, block_size)


def _pad(rows: Sequence[NDArray[np.int64]], block_size: int) -> tuple[Tensor, Tensor]:
    """The rows as a matrix (B, T) of ids, and where they are: (B, T) booleans."""
    lengths = np.array([len(row) for row in rows])
    width = min(block_size, -(-int(lengths.max()) // STEP) * STEP)
    ids = np.zeros((len(rows), width), np.int64)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = values
    return torch.from_numpy(ids), torch.from_numpy(np.arange(width) < lengths[:, None])
