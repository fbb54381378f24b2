"""The losses of models that only count, against a count one by one."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.data.shards import TokenArray, shard_writer
from glassgpt.errors import UserError
from glassgpt.evaluation.counting import bigram_loss, counting_losses, unigram_loss

SIZE = 6
Ids = st.lists(st.integers(0, SIZE - 1), min_size=2, max_size=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


def split(folder: Path, name: str, ids: Sequence[int]) -> TokenArray:
    with shard_writer(folder / name, np.dtype(np.uint16)) as writer:
        writer.append(np.array(ids, np.uint16))
    return TokenArray([folder / name])


def frequency(train: Sequence[int], id: int) -> float:
    return (train.count(id) + 1) / (len(train) + SIZE)


def pair_probability(train: Sequence[int], a: int, b: int) -> float:
    """Witten and Bell, from the definition."""
    after = Counter(second for first, second in itertools.pairwise(train) if first == a)
    if not after:
        return frequency(train, b)
    return (after[b] + len(after) * frequency(train, b)) / (after.total() + len(after))


@given(train=Ids, val=Ids)
def test_losses_of_counting(folder: Path, train: list[int], val: list[int]) -> None:
    arrays = split(folder, "train", train), split(folder, "val", val)
    expected = -sum(math.log(frequency(train, id)) for id in val) / len(val)
    assert unigram_loss(*arrays, SIZE) == pytest.approx(expected)
    losses = [-math.log(pair_probability(train, a, b)) for a, b in itertools.pairwise(val)]
    assert bigram_loss(*arrays, SIZE) == pytest.approx(sum(losses) / len(losses))


def test_pairs_are_a_distribution() -> None:
    train = [0, 1, 0, 1, 2, 3, 3, 0]
    for a in range(SIZE):
        assert sum(pair_probability(train, a, b) for b in range(SIZE)) == pytest.approx(1)


def test_text_in_which_each_token_gives_the_next(folder: Path) -> None:
    cycle = split(folder, "cycle", [*range(SIZE)] * 50)
    assert bigram_loss(cycle, cycle, SIZE) < 0.05 < 1.7 < unigram_loss(cycle, cycle, SIZE)


def test_all_losses_of_counting(folder: Path) -> None:
    row = [0, 0, 1, 0, 2]
    train, val = split(folder, "all", row * 40), split(folder, "some", row * 4)
    found = counting_losses(train, val, SIZE)
    assert found.unigram == unigram_loss(train, val, SIZE) and found.bigram == bigram_loss(train, val, SIZE)
    assert found.order == 6 and found.ngram < 0.1 < found.bigram


def test_what_cannot_be_counted(folder: Path) -> None:
    fine, single, foreign = (split(folder, str(n), ids) for n, ids in enumerate(([0, 1, 2], [1], [0, 9])))
    with pytest.raises(UserError, match="fewer than two tokens"):
        bigram_loss(fine, single, SIZE)
    for loss in (unigram_loss, bigram_loss, counting_losses):
        with pytest.raises(UserError, match="the data has the id 9, and the vocabulary only 6"):
            loss(foreign, fine, SIZE)
