"""How much of the validation text stands in the training text: by rolling hashes, in flat memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from glassgpt.doctor.finding import Finding, judge, skip
from glassgpt.doctor.parts import MOST, iter_parts, share
from glassgpt.doctor.subject import Subject
from glassgpt.runtime.splitmix import GOLDEN, splitmix64

WINDOW_BYTES = 50  # of text, as in GPT-4's report (2023, appendix C): rarely in two places by chance
WINDOW_TOKENS = 13  # and at least so many tokens; GPT-3's paper (2020, appendix C) looks for 13 words
HARMLESS = 0.05  # share of the windows
MOST_WINDOWS = 2 << 20  # of the validation split, held in memory as hashes
_FILTER_BITS = 25  # a table of 32 MB that lets one hash in 16 through where two million are looked for
_MULTIPLIER = GOLDEN  # odd, so that no power of it vanishes modulo 2^64


def check_overlap(subject: Subject) -> Finding:
    """How much of the validation text stands in the training text word for word."""
    expected = f"at most {HARMLESS:.0%}"
    train, val = subject.train, subject.val
    width = window_width(subject)
    if min(len(train), len(val)) < width:
        return skip("overlap", f"a split is shorter than a window of {width} tokens", expected=expected)
    found = find_repeated(iter_parts(val, MOST_WINDOWS, overlap=width - 1), iter_parts(train, overlap=width - 1), width)
    looked_at = f"val {share(MOST_WINDOWS, len(val))}, train {share(MOST, len(train))}"
    return judge(
        "overlap",
        found <= HARMLESS,
        figure=f"{found:.2%} of validation windows of {width} tokens ({looked_at})",
        expected=expected,
        reason="what was trained on is no test: to remember a share of it lowers the loss by about that share",
        remedy="remove duplicates from the text, or split it where documents end; a text that repeats itself has no"
        " part to test on",
    )


def window_width(subject: Subject) -> int:
    """How many tokens of the validation text stand for WINDOW_BYTES."""
    ids, counts = np.unique(subject.val.slice(0, min(len(subject.val), 100_000)), return_counts=True)
    n_bytes = sum(len(subject.tokenizer.token_bytes(int(id))) * int(n) for id, n in zip(ids, counts, strict=True))
    return max(WINDOW_TOKENS, round(WINDOW_BYTES * int(counts.sum()) / max(1, n_bytes)))


def find_repeated(needles: Iterable[NDArray[np.int64]], haystack: Iterable[NDArray[np.int64]], width: int) -> float:
    """The share of the windows of `width` ids in `needles` that stand somewhere in `haystack`, both in chunks.

    A window is known by a 64-bit hash: among 2 million and 100 million windows a false hit has a chance of 1e-5.
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

    The hash of 2k ids is that of the first k times a power, plus that of the last k, so it takes log₂ width passes.
    """
    if len(ids) < width:
        return np.empty(0, np.uint64)
    block, length, power = splitmix64(ids.astype(np.uint64)), 1, _MULTIPLIER
    result: NDArray[np.uint64] | None = None
    done = 0
    with np.errstate(over="ignore"):
        while True:
            if width & length:  # these `length` ids go before the `done` ones
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
