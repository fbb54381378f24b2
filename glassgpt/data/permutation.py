"""A keyed permutation of 0…n-1 that is computed, not stored: constant memory for any n.

A generalised Feistel network (Black and Rogaway, 2002, "Ciphers with arbitrary finite domains"): x is a pair
(left, right) in a·b cells, a and b about √n, and each round adds a keyed hash of one half to the other. The few
cells outside 0…n-1 are walked on from until they lead inside (cycle walking).
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glassgpt.runtime.splitmix import MULTIPLIERS

_ROUNDS = 8  # fewer leave a trace where n is below a hundred; even, so that both halves are mixed equally often


def derive_keys(*labels: int | str, n: int) -> NDArray[np.uint64]:
    """`n` independent 64-bit numbers from any labels: the same on every machine and for ever."""
    text = "/".join(str(label) for label in labels).encode()
    digest = hashlib.shake_128(text).digest(8 * n)
    return np.frombuffer(digest, "<u8").astype(np.uint64)


class Permutation:
    """The permutation of `n` ≥ 1 numbers that belongs to `labels`: `permutation(indices)` maps arrays of them."""

    def __init__(self, n: int, *labels: int | str) -> None:
        if n < 1:
            raise ValueError(f"a permutation needs at least one element, not {n}")
        self.n = n
        # b first: a is then the fewest rows that hold n cells, so less than one row of them lies outside.
        b = math.isqrt(n - 1) + 1
        self._b = np.uint64(b)
        self._a = np.uint64(-(-n // b))
        self._keys = derive_keys("permutation", n, *labels, n=_ROUNDS)

    def __call__(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Where `indices`, each in 0…n-1, are sent: int64 of the same shape."""
        cells = self._shuffle(np.asarray(indices).astype(np.uint64))
        while (outside := cells >= self.n).any():
            cells[outside] = self._shuffle(cells[outside])
        return cells.astype(np.int64)

    def _shuffle(self, cells: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """One pass of the network: a bijection of the a·b cells."""
        left, right = np.divmod(cells, self._b)
        for key_left, key_right in self._keys.reshape(-1, 2):
            left = (left + _hash(right, key_left)) % self._a
            right = (right + _hash(left, key_right)) % self._b
        return left * self._b + right


def _hash(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """48 bits that each depend on every bit of the values and the key: two rounds of multiply and fold.

    48 and not 64, so that a half can be added without overflow; the multipliers are those of SplitMix64. The order of
    all batches rests on these bits.
    """
    z = (values ^ key) * MULTIPLIERS[0]
    z ^= z >> np.uint64(32)
    z *= MULTIPLIERS[1]
    z >>= np.uint64(16)
    return z
