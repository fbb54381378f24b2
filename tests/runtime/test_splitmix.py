"""SplitMix64: the published numbers, and the same bits for arrays as in plain integers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.runtime.splitmix import mix, splitmix64

MASK = 2**64 - 1


def plain(*parts: int) -> int:
    """The fold in Python's integers, as runs before this module was written seeded their dropout."""
    state = 0
    for part in parts:
        state = (state ^ (part & MASK)) + 0x9E3779B97F4A7C15 & MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK
        state ^= state >> 31
    return state


def test_the_first_outputs_are_those_of_the_reference() -> None:
    """Of the C program of Vigna, begun with 1234567, as Rosetta Code prints them."""
    states = np.array([1234567], np.uint64) + np.arange(5, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert splitmix64(states).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


@given(st.lists(st.integers(0, MASK), min_size=1))
def test_an_array_has_the_same_bits_as_plain_integers(states: list[int]) -> None:
    assert splitmix64(np.array(states, np.uint64)).tolist() == [plain(state) for state in states]


@given(st.lists(st.integers(-(2**70), 2**70), max_size=6))
def test_a_seed_is_the_one_it_always_was(parts: list[int]) -> None:
    assert mix(*parts) == plain(*parts) >> 1
