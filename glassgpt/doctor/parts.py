"""A split of ids read part by part: all of it, or where that would take minutes, parts spread evenly over it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from glassgpt.data.shards import TokenArray

PART = 1 << 20  # ids read at a time
MOST = 100 * PART  # ids looked at in all: a second or two


def iter_parts(tokens: TokenArray, most: int = MOST, *, overlap: int = 0) -> Iterator[NDArray[np.int64]]:
    """Parts of PART ids, each with `overlap` of the next; so many that they hold about `most` ids, at least one."""
    n_parts = -(-len(tokens) // PART)
    chosen = max(1, min(n_parts, most // PART))
    for i in range(min(chosen, n_parts)):
        start = i * n_parts // chosen * PART
        yield tokens.slice(start, min(start + PART + overlap, len(tokens)))


def share(seen: int, whole: int) -> str:
    """How much of a split was looked at, openly."""
    return f"all {whole:,}" if seen >= whole else f"{seen:,} of {whole:,}"
