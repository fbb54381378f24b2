"""The validation loss of models that only count: how often each token occurs, each pair, or each row of several.

They are the lines to beat. A model below the first one uses the tokens before; one below the second uses more of them
than the last one; one below the third knows something that no count of short rows can know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glassgpt.data.parts import PART, iter_parts
from glassgpt.data.shards import TokenArray
from glassgpt.errors import UserError
from glassgpt.evaluation.ngram import NGramModel

MOST_PAIRS = 8 * PART  # pairs that are counted: sorting them takes about a second
MOST_PREDICTED = 2 * PART  # validation tokens that pairs predict


@dataclass(frozen=True)
class CountingLosses:
    """Validation losses of models that only count, in nats per token."""

    unigram: float
    bigram: float
    ngram: float  # Kneser–Ney (glassgpt/evaluation/ngram.py)
    order: int  # the tokens of the longest row that it counts


def counting_losses(train: TokenArray, val: TokenArray, vocab_size: int) -> CountingLosses:
    """All of them. Raises UserError for an id outside the vocabulary, and for a validation split without a pair."""
    pairs = unigram_loss(train, val, vocab_size), bigram_loss(train, val, vocab_size)
    rows = NGramModel.fit(train, vocab_size)
    return CountingLosses(*pairs, rows.loss(val), rows.order)


def unigram_loss(train: TokenArray, val: TokenArray, vocab_size: int) -> float:
    """Validation loss of a unigram model fitted on the training split with add-one smoothing; nats per token.

    Raises UserError for an id that is not in the vocabulary.
    """
    return frequency_loss(_count(train, vocab_size), _count(val, vocab_size))


def frequency_loss(train: NDArray[np.int64], val: NDArray[np.int64]) -> float:
    """The loss of the frequencies of tokens, fitted on the counts `train` (V,) with add-one smoothing; nats per token.

    `val` (V,) counts the tokens on which it is measured.
    """
    return float(-(val * np.log(_smoothed(train))).sum() / val.sum())


def bigram_loss(train: TokenArray, val: TokenArray, vocab_size: int) -> float:
    """Validation loss of a bigram model fitted on the training split; nats per token.

    The probability of b after a is (c(ab) + n(a) p(b)) / (c(a) + n(a)) with the counts c, the number n(a) of different
    tokens that follow a, and the unigram probability p (Witten and Bell 1991): a pair that was never seen gets a part
    of the unigram's. Of long splits a sample is read. Raises UserError for an id that is not in the vocabulary, and
    for a validation split without a pair.
    """
    frequencies = _smoothed(_count(train, vocab_size))
    known, known_counts = _pairs(train, vocab_size, MOST_PAIRS)
    firsts = known // vocab_size
    n_followers = np.bincount(firsts, minlength=vocab_size)
    n_followed = np.bincount(firsts, weights=known_counts, minlength=vocab_size)
    pairs, counts = _pairs(val, vocab_size, MOST_PREDICTED)
    if len(pairs) == 0:
        raise UserError("the validation split has fewer than two tokens")
    first, second = np.divmod(pairs, vocab_size)
    at = np.minimum(np.searchsorted(known, pairs), max(len(known) - 1, 0))
    seen = np.where(known[at] == pairs, known_counts[at], 0) if len(known) else np.zeros(len(pairs))
    weight = np.maximum(n_followers[first], 1)  # of a token that nothing has followed yet: the unigram's probability
    probabilities = (seen + weight * frequencies[second]) / (n_followed[first] + weight)
    return float(-(counts * np.log(probabilities)).sum() / counts.sum())


def _smoothed(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return (counts + 1.0) / (counts.sum() + len(counts))


def _count(tokens: TokenArray, vocab_size: int) -> NDArray[np.int64]:
    counts = np.zeros(vocab_size, np.int64)
    for ids in iter_parts(tokens):
        _check(ids, vocab_size)
        counts += np.bincount(ids, minlength=vocab_size)
    return counts


def _pairs(tokens: TokenArray, vocab_size: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each pair of neighbours (a, b) as a * vocab_size + b, sorted, and how often it occurs."""
    found = []
    for ids in iter_parts(tokens, most, overlap=1):
        _check(ids, vocab_size)
        found.append(ids[:-1].astype(np.int64) * vocab_size + ids[1:])
    return np.unique(np.concatenate(found), return_counts=True)


def _check(ids: NDArray[np.int64], vocab_size: int) -> None:
    if len(ids) and int(ids.max()) >= vocab_size:
        raise UserError(f"the data has the id {int(ids.max())}, and the vocabulary only {vocab_size:,}")
