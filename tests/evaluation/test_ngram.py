"""The n-gram model against the definition of its smoothing, applied one token at a time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.data.shards import TokenArray, shard_writer
from glassgpt.errors import UserError
from glassgpt.evaluation.ngram import NGramModel

SIZE = 4
Ids = st.lists(st.integers(0, SIZE - 1), min_size=2, max_size=80)


def discounts(counts: Sequence[int]) -> list[float]:
    """Of the counts 0, 1, 2, and 3 or more: Chen and Goodman 1999, modified Kneser–Ney smoothing."""
    n = [sum(count == times for count in counts) for times in range(5)]
    if not all(n[1:]):
        return [0, 0.5, 1, 1.5]
    y = n[1] / (n[1] + 2 * n[2])
    found = [0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
    return found if all(0 <= each <= times for times, each in enumerate(found)) else [0, 0.5, 1, 1.5]


def kneser_ney(train: list[int], order: int) -> Callable[[Sequence[int], int], float]:
    """The probability of a token after a context, by recursion over dictionaries."""
    text = [None, *train]  # the beginning counts as one more context
    counts: list[Counter[tuple[int, ...]]] = []
    for n in range(1, order + 1):
        ends = range(n, len(text))
        if n == order:
            counts.append(Counter(tuple(text[end - n + 1 : end + 1]) for end in ends))
        else:
            seen = defaultdict(set)
            for end in ends:
                seen[tuple(text[end - n + 1 : end + 1])].add(text[end - n])
            counts.append(Counter({gram: len(before) for gram, before in seen.items()}))
    taken = [discounts(list(each.values())) for each in counts]

    def probability(context: Sequence[int], token: int) -> float:
        n = len(context) + 1
        below = probability(context[1:], token) if context else 1 / SIZE
        followers = {gram: count for gram, count in counts[n - 1].items() if gram[:-1] == tuple(context)}
        if not followers:
            return below
        whole = sum(followers.values())
        count = followers.get((*context, token), 0)
        left = sum(taken[n - 1][min(each, 3)] for each in followers.values())
        return (count - taken[n - 1][min(count, 3)] + left * below) / whole

    return probability


@settings(deadline=None)
@given(train=Ids, val=Ids, order=st.integers(1, 4))
def test_every_token_has_the_probability_of_the_definition(train: list[int], val: list[int], order: int) -> None:
    order = min(order, len(train))
    probability = kneser_ney(train, order)
    model = NGramModel.fit(np.array(train), SIZE, order)
    expected = [-math.log(probability(val[max(0, at - order + 1) : at], val[at])) for at in range(1, len(val))]
    assert model.losses(np.array(val)) == pytest.approx(expected)


@settings(deadline=None)
@given(train=Ids, val=Ids, order=st.integers(1, 4))
def test_what_follows_a_token_is_a_distribution(train: list[int], val: list[int], order: int) -> None:
    model, ids = NGramModel.fit(np.array(train), SIZE, order), np.array(val)
    rows = model.probabilities(ids)
    assert rows.min() > 0 and rows.sum(axis=1) == pytest.approx(np.ones(len(val)))
    assert -np.log(rows[np.arange(len(val) - 1), ids[1:]]) == pytest.approx(model.losses(ids))


@given(train=Ids, val=Ids)
def test_the_known_context_is_the_longest_row_that_occurs(train: list[int], val: list[int]) -> None:
    text = "".join(map(str, train))
    longest = [
        max(n for n in range(4) if n <= at and "".join(map(str, val[at - n : at])) in text)
        for at in range(1, len(val) + 1)
    ]
    assert NGramModel.fit(np.array(train), SIZE, order=4).known_context(np.array(val)).tolist() == [
        min(length, len(train) - 1) for length in longest
    ]


def test_a_text_in_which_the_last_two_tokens_give_the_next() -> None:
    words = np.array([0, 0, 1, 0, 2] * 200)
    losses = [NGramModel.fit(words, SIZE, order).loss(words) for order in (1, 2, 3)]
    assert losses[0] > 0.9 and losses[1] == pytest.approx(0.6 * math.log(3), abs=0.01) and losses[2] < 0.01


def test_splits_on_disk_are_read(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, SIZE, 500)
    with shard_writer(tmp_path / "ids", np.dtype(np.uint16)) as writer:
        writer.append(ids.astype(np.uint16))
    assert NGramModel.fit(TokenArray([tmp_path / "ids"]), SIZE).loss(ids) == NGramModel.fit(ids, SIZE).loss(ids)


def test_an_order_beyond_the_text_is_that_of_the_text() -> None:
    model = NGramModel.fit(np.array([0, 1]), SIZE, order=6)
    assert model.order == 2 and model.losses(np.array([0, 1]))[0] < math.log(SIZE)


def test_what_cannot_be_counted() -> None:
    with pytest.raises(UserError, match="no tokens"):
        NGramModel.fit(np.array([], np.int64), SIZE)
    with pytest.raises(UserError, match="the data has the id 9, and the vocabulary only 4"):
        NGramModel.fit(np.array([1, 9]), SIZE)
    model = NGramModel.fit(np.array([1, 2]), SIZE)
    with pytest.raises(UserError, match="fewer than two tokens"):
        model.loss(np.array([1]))
    with pytest.raises(UserError, match="the vocabulary only 4"):
        model.loss(np.array([1, 4]))
