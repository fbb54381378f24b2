"""Measures the overlap of validation and training text, with rolling hashes in constant memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from glassgpt.data.pairs import split_pair
from glassgpt.data.parts import MOST, iter_parts, share
from glassgpt.doctor.finding import Finding, judge, skip
from glassgpt.doctor.subject import PairSubject, Subject
from glassgpt.runtime.splitmix import GOLDEN, splitmix64

WINDOW_BYTES = 50  # of text, as in the GPT-4 report (2023, appendix C): rarely repeated by chance
WINDOW_TOKENS = 13  # at least; the GPT-3 paper (2020, appendix C) uses 13 words
HARMLESS = 0.05  # fraction of the windows
MOST_WINDOWS = 2 << 20  # of the validation split, held in memory as hashes
MOST_PAIRS = 1 << 20  # of a split, read one after another
_FILTER_BITS = 25  # a 32 MB table; with two million wanted hashes, it passes one of 16 other hashes
_MULTIPLIER = GOLDEN  # odd, so that no power of it is 0 modulo 2^64


def check_overlap(subject: Subject) -> Finding:
    """Checks how much of the validation text is copied verbatim in the training text."""
    expected = f"at most {HARMLESS:.0%}"
    train, val = subject.train, subject.val
    width = window_width(subject)
    if min(len(train), len(val)) < width:
        return skip("overlap", f"a split is shorter than a window of {width} tokens", expected=expected)
    found = find_repeated(iter_parts(val, MOST_WINDOWS, overlap=width - 1), iter_parts(train, overlap=width - 1), width)
    examined = f"val {share(MOST_WINDOWS, len(val))}, train {share(MOST, len(train))}"
    return judge(
        "overlap",
        found <= HARMLESS,
        figure=f"{found:.2%} of validation windows of {width} tokens ({examined})",
        expected=expected,
        reason="text seen in training is no test: memorising a fraction of it lowers the loss by about that fraction",
        remedy="remove duplicates from the text, or split it between documents; no part of a text that repeats itself"
        " can serve as a test",
    )


def check_pair_overlap(subject: PairSubject) -> Finding:
    """Checks how many validation pairs have a source that is also in the training pairs."""
    val, train = (
        [split_pair(pairs, number)[0].tobytes() for number in range(min(len(pairs), MOST_PAIRS))]
        for pairs in (subject.pairs.val, subject.pairs.train)
    )
    known = set(train)
    found = sum(source in known for source in val) / len(val)
    lengths = len(subject.pairs.val), len(subject.pairs.train)
    examined = f"val {share(len(val), lengths[0])}, train {share(len(train), lengths[1])}"
    return judge(
        "overlap",
        found <= HARMLESS,
        figure=f"{found:.2%} of validation sources ({examined})",
        expected=f"at most {HARMLESS:.0%}",
        reason="a source seen in training is no test: its target can be remembered",
        remedy="give each source once",
    )


def window_width(subject: Subject) -> int:
    """Number of tokens that make WINDOW_BYTES of validation text, but at least WINDOW_TOKENS."""
    ids, counts = np.unique(subject.val.slice(0, min(len(subject.val), 100_000)), return_counts=True)
    n_bytes = sum(len(subject.tokenizer.token_bytes(int(id))) * int(n) for id, n in zip(ids, counts, strict=True))
    return max(WINDOW_TOKENS, round(WINDOW_BYTES * int(counts.sum()) / max(1, n_bytes)))


def find_repeated(needles: Iterable[NDArray[np.int64]], haystack: Iterable[NDArray[np.int64]], width: int) -> float:
    """The fraction of windows of `width` ids in `needles` that occur somewhere in `haystack`; both come in chunks.

    Windows are compared by 64-bit hash. For 2 million and 100 million windows, a false match has probability 1e-5.
    """
    wanted, counts = np.unique(np.concatenate([hash_windows(ids, width) for ids in needles]), return_counts=True)
    table = np.zeros(1 << _FILTER_BITS, bool)
    table[_slot(wanted)] = True
    found = np.zeros(len(wanted), bool)
    for ids in haystack:
        hashes = hash_windows(ids, width)
        hashes = hashes[table[_slot(hashes)]]
        place = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        found[place[wanted[place] == hashes]] = True
    return float(counts[found].sum() / max(1, counts.sum()))


def hash_windows(ids: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """The hash of each window of `width` ids: a polynomial in _MULTIPLIER modulo 2^64 over scrambled ids.

    The hash of 2k ids is the hash of the first k times a power, plus the hash of the last k. So it takes log₂(width)
    passes over the ids.
    """
    if len(ids) < width:
        return np.empty(0, np.uint64)
    block, length, power = splitmix64(ids.astype(np.uint64)), 1, _MULTIPLIER
    result: NDArray[np.uint64] | None = None
    done = 0
    with np.errstate(over="ignore"):
        while True:
            if width & length:  # put these `length` ids before the `done` ones
                tail = result
                result = block if tail is None else block[: len(tail) - length] * _power(done) + tail[length:]
                done += length
            if done == width:
                assert result is not None
                return result
            block = block[:-length] * power + block[length:]
            power, length = power * power, length * 2


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(int(_MULTIPLIER), exponent, 1 << 64))


def _slot(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return hashes >> np.uint64(64 - _FILTER_BITS)
