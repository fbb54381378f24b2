"""Reads a split in parts: all of it, or, if that would take minutes, a sample spread evenly over it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from glassgpt.data.shards import TokenArray

PART = 1 << 20  # ids read at a time
MOST = 100 * PART  # ids read in all: takes a second or two


def iter_parts(tokens: TokenArray, most: int = MOST, *, overlap: int = 0) -> Iterator[NDArray[np.int64]]:
    """Parts of PART ids, each extended by `overlap` ids of the next; about `most` ids in all, at least one part."""
    n_parts = -(-len(tokens) // PART)
    chosen = max(1, min(n_parts, most // PART))
    for i in range(min(chosen, n_parts)):
        start = i * n_parts // chosen * PART
        yield tokens.slice(start, min(start + PART + overlap, len(tokens)))


def share(seen: int, whole: int) -> str:
    """In words, how much of a split was read: "all 1,000" or "100 of 1,000"."""
    return f"all {whole:,}" if seen >= whole else f"{seen:,} of {whole:,}"
