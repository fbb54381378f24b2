"""SplitMix64 pseudorandom numbers (Steele et al. 2014, "Fast splittable pseudorandom number generators")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio; odd
MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The SplitMix64 output for each state in x, same shape: a bijection that maps neighbours far apart."""
    x = x + GOLDEN  # integer arrays overflow without a warning
    x = (x ^ (x >> np.uint64(30))) * MULTIPLIERS[0]
    x = (x ^ (x >> np.uint64(27))) * MULTIPLIERS[1]
    return x ^ (x >> np.uint64(31))


def mix(*parts: int) -> int:
    """Combines integers (their lowest 64 bits) into one 63-bit seed."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = splitmix64(state ^ np.uint64(part & 0xFFFFFFFFFFFFFFFF))
    return int(state[0]) >> 1
