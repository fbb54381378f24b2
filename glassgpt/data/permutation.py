"""A keyed permutation of 0…n-1 that is computed, not stored: constant memory for any n.

A generalised Feistel network (Black and Rogaway, 2002, "Ciphers with arbitrary finite domains"): x is a pair
(left, right) in a grid of a·b cells, with a and b about √n. Each round adds a keyed hash of one half to the other.
A result outside 0…n-1 is permuted again until it lies inside (cycle walking).
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glassgpt.runtime.splitmix import MULTIPLIERS

_ROUNDS = 8  # fewer leave visible patterns for n < 100; even, so that both halves are mixed equally often


def derive_keys(*labels: int | str, n: int) -> NDArray[np.uint64]:
    """`n` independent 64-bit numbers derived from labels: the same on every machine and in every version."""
    text = "/".join(str(label) for label in labels).encode()
    digest = hashlib.shake_128(text).digest(8 * n)
    return np.frombuffer(digest, "<u8").astype(np.uint64)


class Permutation:
    """The permutation of 0…n-1, n ≥ 1, keyed by `labels`. `permutation(indices)` maps an array of indices."""

    def __init__(self, n: int, *labels: int | str) -> None:
        if n < 1:
            raise ValueError(f"a permutation needs at least one element, not {n}")
        self.n = n
        # b = ⌈√n⌉ and a = ⌈n/b⌉: fewer than b cells lie outside 0…n-1.
        b = math.isqrt(n - 1) + 1
        self._b = np.uint64(b)
        self._a = np.uint64(-(-n // b))
        self._keys = derive_keys("permutation", n, *labels, n=_ROUNDS)

    def __call__(self, indices: ArrayLike) -> NDArray[np.int64]:
        """The images of `indices`, each in 0…n-1: int64 of the same shape."""
        cells = self._shuffle(np.asarray(indices).astype(np.uint64))
        while (outside := cells >= self.n).any():
            cells[outside] = self._shuffle(cells[outside])
        return cells.astype(np.int64)

    def _shuffle(self, cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """One pass through the network: a bijection of the a·b cells."""
        left, right = np.divmod(cells, self._b)
        for key_left, key_right in self._keys.reshape(-1, 2):
            left = (left + _hash(right, key_left)) % self._a
            right = (right + _hash(left, key_right)) % self._b
        return left * self._b + right


def _hash(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """A 48-bit hash in which each bit depends on every bit of the value and the key: two rounds of multiply and fold.

    48 bits instead of 64, so that adding a half cannot overflow. The multipliers are those of SplitMix64. The order of
    all batches depends on these bits: changing them breaks exact resume.
    """
    z = (values ^ key) * MULTIPLIERS[0]
    z ^= z >> np.uint64(32)
    z *= MULTIPLIERS[1]
    z >>= np.uint64(16)
    return z
