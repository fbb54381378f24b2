"""A model that only counts: interpolated Kneser–Ney smoothing of n-grams, with modified discounts.

Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 3. An n-gram
is a row of n tokens. Its last token is predicted from those before it, the *context*. The highest order counts how
often each n-gram occurs. Every lower order counts in how many *different* contexts it was seen: "Francisco" is
frequent, but only after "San", so it is a bad guess where the context is new. A discount takes a little from each
count, and what is taken goes to the order below.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glassgpt.data.shards import TokenArray
from glassgpt.errors import UserError

ORDER = 6
MOST_COUNTED = 3_000_000  # tokens, the first ones of a longer split: counting them takes about 4 s and 0.8 GB
MOST_PREDICTED = 500_000
FALLBACK = (0.5, 1.0, 1.5)  # discounts, where a text is too short to estimate them

Ids = NDArray[np.int64]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """The n-grams of one order, sorted. The place of an n-gram in this order is its id.

    `keys[i]` is context * V + token, where the context is the id of an n-gram of the order below (0 for the order 1).
    """

    keys: Ids
    shares: Numbers  # (n-grams,): the discounted count over the sum of all counts of its context
    left: Numbers  # (contexts,): what the discounts have taken: the weight of the order below

    def find(self, contexts: Ids, tokens: Ids, vocab_size: int) -> Ids:
        """The ids of n-grams, −1 for one that was never seen. `contexts` may be −1 too."""
        wanted = contexts * vocab_size + tokens
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where((contexts >= 0) & (self.keys[at] == wanted), at, -1)


@dataclass(frozen=True)
class NGramModel:
    """The probability of a token after the up to `order` − 1 tokens before it, from counts alone."""

    vocab_size: int
    levels: tuple[Level, ...]  # of the orders 1, 2, …

    @classmethod
    def fit(cls, tokens: TokenArray | Ids, vocab_size: int, order: int = ORDER) -> NGramModel:
        """Counts a training split. Raises UserError for an id outside the vocabulary, or a split without tokens."""
        ids = _read(tokens, vocab_size, MOST_COUNTED)
        if len(ids) == 0:
            raise UserError("the training split has no tokens to count")
        order = min(order, len(ids))
        grams = list(_unique_grams(ids, vocab_size, order))
        levels = []
        for n, (keys, counts, _, _) in enumerate(grams, 1):
            n_contexts = 1 if n == 1 else len(grams[n - 2][0])
            if n < order:  # in how many different contexts, the beginning of the text being one
                _, _, suffixes, first = grams[n]
                counts = np.bincount(suffixes, minlength=len(keys)) + (np.arange(len(keys)) == first)
            levels.append(_smooth(keys, counts, keys // vocab_size, n_contexts))
        return cls(vocab_size, tuple(levels))

    @property
    def order(self) -> int:
        """The longest n-gram that was counted."""
        return len(self.levels)

    def losses(self, tokens: TokenArray | Ids) -> Numbers:
        """The loss of each token but the first, in nats, given those before it: (tokens − 1,)."""
        ids = _read(tokens, self.vocab_size)
        probabilities = np.full(len(ids), 1 / self.vocab_size)
        for level, contexts in zip(self.levels, self._contexts(ids), strict=True):
            grams = level.find(contexts, ids, self.vocab_size)
            known = contexts >= 0
            probabilities[known] *= level.left[contexts[known]]
            probabilities[grams >= 0] += level.shares[grams[grams >= 0]]
        return -np.log(probabilities[1:])

    def loss(self, tokens: TokenArray | Ids) -> float:
        """The mean loss of the tokens of a validation split, in nats per token."""
        losses = self.losses(tokens)
        if len(losses) == 0:
            raise UserError("the validation split has fewer than two tokens")
        return float(losses.mean())

    def probabilities(self, tokens: TokenArray | Ids) -> Numbers:
        """What follows each token: (tokens, V), each row a distribution given all tokens up to this one."""
        ids = _read(tokens, self.vocab_size)
        found = np.full((len(ids), self.vocab_size), 1 / self.vocab_size)
        # The context of what comes after the last token is asked for by a further token, whichever it is.
        for level, asked in zip(self.levels, self._contexts(np.append(ids, 0)), strict=True):
            contexts = asked[1:]
            known = np.flatnonzero(contexts >= 0)
            found[known] *= level.left[contexts[known], None]
            begin, end = (np.searchsorted(level.keys, (contexts[known] + more) * self.vocab_size) for more in (0, 1))
            sizes = end - begin
            grams = np.repeat(begin - np.concatenate(([0], np.cumsum(sizes)[:-1])), sizes) + np.arange(sizes.sum())
            found[np.repeat(known, sizes), level.keys[grams] % self.vocab_size] += level.shares[grams]
        return found

    def known_context(self, tokens: TokenArray | Ids) -> Ids:
        """How many tokens, up to each one, were counted in a row: (tokens,), `order` − 1 at most."""
        ids = _read(tokens, self.vocab_size)
        found = np.zeros(len(ids), np.int64)
        for length, asked in enumerate(self._contexts(np.append(ids, 0))):
            found[asked[1:] >= 0] = length
        return found

    def _contexts(self, ids: Ids) -> Iterator[Ids]:
        """For each order, the context of each token: its id, −1 if it was never seen or would begin before the text."""
        contexts = np.zeros(len(ids), np.int64)
        for level in self.levels:
            yield contexts
            grams = level.find(contexts, ids, self.vocab_size)
            contexts = np.concatenate(([-1], grams[:-1]))


def _read(tokens: TokenArray | Ids, vocab_size: int, most: int = MOST_PREDICTED) -> Ids:
    ids = (tokens if isinstance(tokens, np.ndarray) else tokens.slice(0, min(len(tokens), most))).astype(np.int64)
    if len(ids) and (int(ids.max()) >= vocab_size or int(ids.min()) < 0):
        raise UserError(f"the data has the id {int(ids.max())}, and the vocabulary only {vocab_size:,}")
    return ids


def _unique_grams(ids: Ids, vocab_size: int, order: int) -> Iterator[tuple[Ids, Ids, Ids, int]]:
    """For the orders 1, 2, …: the keys of all n-grams, their counts, and the id of each one's suffix.

    The suffix is the n-gram without its first token, of the order below. Last comes the id, in the order below, of
    the n-gram with which the text begins.
    """
    contexts = np.zeros(len(ids), np.int64)
    below = np.zeros(len(ids), np.int64)  # the id of the n-gram of the order below that ends at each place
    for _ in range(order):
        keys, places, grams, counts = np.unique(
            contexts * vocab_size + ids[len(ids) - len(contexts) :],
            return_index=True, return_inverse=True, return_counts=True,
        )  # fmt: skip
        yield keys, counts, below[len(below) - len(contexts) :][places], int(below[0])
        contexts, below = grams[:-1], grams


def _smooth(keys: Ids, counts: Ids, contexts: Ids, n_contexts: int) -> Level:
    """A level from the counts of its n-grams, by the context of each."""
    discounts = np.array((0.0, *_discounts(counts)))[np.minimum(counts, 3)]
    sums = np.bincount(contexts, weights=counts, minlength=n_contexts)
    taken = np.bincount(contexts, weights=discounts, minlength=n_contexts)
    # Nothing follows the last n-gram of the text if it occurs there only: all of the weight goes to the order below.
    left = np.where(sums > 0, taken / np.maximum(sums, 1), 1.0)
    return Level(keys, (counts - discounts) / np.maximum(sums[contexts], 1), left)


def _discounts(counts: Ids) -> tuple[float, ...]:
    """What is taken from a count of 1, of 2, and of 3 or more."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)  # how many n-grams occur 1, 2, 3, 4 times
    if not n.all():
        return FALLBACK
    y = n[0] / (n[0] + 2 * n[1])
    found = tuple(r - (r + 1) * y * n[r] / n[r - 1] for r in (1, 2, 3))
    return found if all(0 <= discount <= r for r, discount in enumerate(found, 1)) else FALLBACK
