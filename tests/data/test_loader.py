"""The data order: complete, independent of ranks, without state or memory."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.data.loader import Loader, find_epoch
from glassgpt.data.shards import TokenArray, dtype_for, write_shard
from glassgpt.errors import UserError


class Counting(TokenArray):
    """The ids 0, 1, 2, …: an id says where it stood."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def slice(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start <= stop <= self.n
        return np.arange(start, stop)


def first_ids(loader: Loader, n_samples: int) -> list[int]:
    """Where the windows of the first samples start."""
    steps = range(-(-n_samples // loader.batch_rows))
    return torch.cat([loader.rows(step)[0][:, 0] for step in steps]).tolist()[:n_samples]


sizes = st.tuples(st.integers(1, 12), st.integers(1, 150)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def test_targets_are_the_inputs_one_later() -> None:
    inputs, targets = Loader(Counting(1000), block_size=8, batch_rows=5, seed=3).rows(7)
    assert inputs.shape == targets.shape == (5, 8)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.is_contiguous() and targets.is_contiguous()
    assert (inputs == inputs[:, :1] + torch.arange(8)).all()
    assert (targets == inputs + 1).all()


@settings(max_examples=100)
@given(sizes, st.integers(1, 9), st.integers(0, 2**64))
def test_an_epoch_visits_each_window_of_its_phase_once(size: tuple[int, int], rows: int, seed: int) -> None:
    block_size, n_tokens = size
    loader = Loader(Counting(n_tokens), block_size, rows, seed)
    first = 0
    for _ in range(3):
        epoch = find_epoch(n_tokens, block_size, seed, first)
        assert epoch.first == first
        assert 0 <= epoch.phase < block_size
        whole_windows = list(range(epoch.phase, n_tokens - block_size, block_size))
        assert epoch.n_windows == len(whole_windows) == (n_tokens - 1 - epoch.phase) // block_size > 0
        starts = first_ids(loader, first + epoch.n_windows)[first:]
        assert sorted(starts) == whole_windows
        first += epoch.n_windows


@settings(max_examples=50)
@given(sizes, st.integers(1, 9), st.integers(0, 99))
def test_a_cycle_of_epochs_visits_every_window_once(size: tuple[int, int], rows: int, seed: int) -> None:
    block_size, n_tokens = size
    n_starts = n_tokens - block_size
    starts = first_ids(Loader(Counting(n_tokens), block_size, rows, seed), 2 * n_starts)
    assert sorted(starts[:n_starts]) == sorted(starts[n_starts:]) == list(range(n_starts))


@settings(max_examples=100)
@given(sizes, st.integers(1, 16), st.integers(0, 10**9), st.data())
def test_any_split_into_ranges_gives_the_same_batch(
    size: tuple[int, int], rows: int, step: int, data: st.DataObject
) -> None:
    block_size, n_tokens = size
    loader = Loader(Counting(n_tokens), block_size, rows)
    inputs, targets = loader.rows(step)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, rows), max_size=4))), rows]
    ranges = list(pairwise(cuts))
    order = data.draw(st.permutations(range(len(ranges))))
    parts = {i: Loader(Counting(n_tokens), block_size, rows).rows(step, *ranges[i]) for i in order}
    assert torch.equal(torch.cat([parts[i][0] for i in range(len(ranges))]), inputs)
    assert torch.equal(torch.cat([parts[i][1] for i in range(len(ranges))]), targets)


def test_the_samples_do_not_depend_on_the_batch_size() -> None:
    one = Loader(Counting(500), block_size=8, batch_rows=1, seed=5)
    twelve = Loader(Counting(500), block_size=8, batch_rows=12, seed=5)
    assert first_ids(one, 240) == first_ids(twelve, 240)


def test_steps_may_be_asked_for_in_any_order() -> None:
    loader = Loader(Counting(500), block_size=8, batch_rows=12, seed=5)
    forth = [loader.rows(step)[0] for step in range(50)]
    back = [loader.rows(step)[0] for step in reversed(range(50))][::-1]
    assert all(torch.equal(one, other) for one, other in zip(forth, back, strict=True))


def test_other_seeds_and_epochs_have_other_orders() -> None:
    orders = [tuple(first_ids(Loader(Counting(5000), 8, 10, seed), 1000)) for seed in range(5)]
    assert len(set(orders)) == 5
    phases = Counter(find_epoch(5000, 8, seed, 0).phase for seed in range(200))
    assert set(phases) == set(range(8))
    assert max(phases.values()) < 50  # 25 each on average


def test_the_order_is_the_same_for_ever() -> None:
    """A run made with an older version resumes on the same batches only while these figures hold."""
    assert first_ids(Loader(Counting(1000), block_size=64, batch_rows=4, seed=1337), 8) == [
        882,
        306,
        818,
        434,
        114,
        754,
        370,
        242,
    ]


def test_a_text_of_ten_billion_tokens_takes_no_memory_and_any_step_is_found_at_once() -> None:
    loader = Loader(Counting(10**10), block_size=1024, batch_rows=512, seed=1)
    inputs, _ = loader.rows(10**12)
    assert len(set(inputs[:, 0].tolist())) == 512
    assert inputs.max() > 9 * 10**9


@pytest.mark.parametrize("n_tokens", [0, 1, 64])
def test_a_text_shorter_than_a_window_is_refused(n_tokens: int) -> None:
    with pytest.raises(UserError, match=rf"too short: it has {n_tokens} tokens.*block_size 64 needs 65"):
        Loader(Counting(n_tokens), block_size=64, batch_rows=12)


def test_a_text_of_exactly_one_window_is_enough() -> None:
    inputs, targets = Loader(Counting(65), block_size=64, batch_rows=3).rows(10)
    assert inputs.tolist() == [list(range(64))] * 3
    assert targets.tolist() == [list(range(1, 65))] * 3


def test_sizes_and_ranges_are_checked() -> None:
    with pytest.raises(UserError, match="at least 1, not 0 and 4"):
        Loader(Counting(100), block_size=0, batch_rows=4)
    with pytest.raises(UserError, match="at least 1, not 8 and 0"):
        Loader(Counting(100), block_size=8, batch_rows=0)
    loader = Loader(Counting(100), block_size=8, batch_rows=4)
    assert loader.rows(0, 2, 2)[0].shape == (0, 8)
    for step, start, stop in [(-1, 0, 4), (0, -1, 4), (0, 0, 5), (0, 3, 2)]:
        with pytest.raises(IndexError):
            loader.rows(step, start, stop)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_thousand_batches_leave_anonymous_memory_as_it_was(tmp_path: Path) -> None:
    """The corpus has 20 MB and is read whole; only file-backed pages may come of it."""
    n_tokens = 10_000_000
    write_shard(tmp_path / "a.shard", np.arange(n_tokens) % 50_000, dtype_for(50_000))
    loader = Loader(TokenArray([tmp_path / "a.shard"]), block_size=64, batch_rows=16, seed=1)
    for step in range(200):
        loader.rows(step)
    before = anonymous_kilobytes()
    for step in range(200, 10_200):
        loader.rows(step)
    assert anonymous_kilobytes() - before < 1024


def anonymous_kilobytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
