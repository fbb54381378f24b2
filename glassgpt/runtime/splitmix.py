"""SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators"): numbers without a pattern."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio; odd
MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output that follows each state x, of the same shape: a bijection in which neighbours are far apart."""
    x = x + GOLDEN  # arrays of integers wrap around without a warning
    x = (x ^ (x >> np.uint64(30))) * MULTIPLIERS[0]
    x = (x ^ (x >> np.uint64(27))) * MULTIPLIERS[1]
    return x ^ (x >> np.uint64(31))


def mix(*parts: int) -> int:
    """Folds integers, of which the lowest 64 bits count, into one 63-bit seed."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = splitmix64(state ^ np.uint64(part & 0xFFFFFFFFFFFFFFFF))
    return int(state[0]) >> 1
