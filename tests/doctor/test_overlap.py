"""Windows found by rolling hashes are those that a set of tuples finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.data import parts
from glassgpt.data.shards import TokenArray, write_shard
from glassgpt.doctor.overlap import find_repeated, hash_windows

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=60).map(lambda ids: np.array(ids, np.int64))


@given(IDS, st.integers(1, 20))
def test_equal_windows_and_only_they_have_equal_hashes(ids: np.ndarray, width: int) -> None:
    hashes = hash_windows(ids, width).tolist()
    windows = [tuple(ids[i : i + width].tolist()) for i in range(len(ids) - width + 1)]
    assert len(hashes) == len(windows)
    assert len(set(hashes)) == len(set(windows)) == len(set(zip(hashes, windows, strict=True)))


@given(IDS, IDS, st.integers(1, 6))
def test_the_share_of_windows_found(needles: np.ndarray, haystack: np.ndarray, width: int) -> None:
    def windows(ids: np.ndarray) -> list[bytes]:
        return [ids[i : i + width].tobytes() for i in range(len(ids) - width + 1)]

    known = set(windows(haystack))
    expected = sum(window in known for window in windows(needles)) / max(1, len(windows(needles)))
    assert find_repeated([needles], [haystack], width) == expected


def test_parts_cover_a_split_or_are_spread_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.arange(95)
    write_shard(tmp_path / "ids.shard", ids, np.dtype("<u2"))
    tokens = TokenArray([tmp_path / "ids.shard"])
    monkeypatch.setattr(parts, "PART", 10)
    assert np.concatenate(list(parts.iter_parts(tokens))).tolist() == ids.tolist()
    spread = [part.tolist() for part in parts.iter_parts(tokens, 20, overlap=1)]
    assert spread == [list(range(11)), list(range(50, 61))]
