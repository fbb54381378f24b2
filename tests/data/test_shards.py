"""The shard format, byte by byte, and what becomes of damaged ones."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.data.shards import (
    TokenArray,
    dtype_for,
    is_shard,
    open_shard,
    read_header,
    shard_writer,
    verify_shard,
    write_shard,
)
from glassgpt.errors import UserError

UINT16, UINT32 = dtype_for(65_536), dtype_for(65_537)


def test_the_format_is_as_documented(tmp_path: Path) -> None:
    path = tmp_path / "a.shard"
    write_shard(path, [1, 2, 65_535], UINT16)
    payload = struct.pack("<3H", 1, 2, 65_535)
    assert path.read_bytes() == (
        b"GLASSTOK" + struct.pack("<IIQ", 1, 2, 3) + hashlib.sha256(payload).digest() + bytes(8) + payload
    )


@pytest.mark.parametrize("dtype", [UINT16, UINT32])
@pytest.mark.parametrize("pieces", [[], [[]], [[7]], [[1, 2], [], [3]], [range(1000), range(500)]])
def test_what_is_appended_comes_back(tmp_path: Path, dtype: np.dtype, pieces: list) -> None:
    path = tmp_path / "a.shard"
    with shard_writer(path, dtype) as writer:
        for piece in pieces:
            writer.append(list(piece))
    ids = open_shard(path)
    assert ids.dtype == dtype
    assert ids.tolist() == [id for piece in pieces for id in piece]
    assert verify_shard(path).count == len(ids)


def test_the_smallest_type_that_holds_the_vocabulary() -> None:
    assert (dtype_for(65).itemsize, UINT16.itemsize, UINT32.itemsize, dtype_for(200_019).itemsize) == (2, 2, 4, 4)


@pytest.mark.parametrize(("ids", "dtype"), [([65_536], UINT16), ([-1], UINT16), ([-1], UINT32), ([1 << 32], UINT32)])
def test_ids_that_do_not_fit_are_refused_and_leave_no_file(tmp_path: Path, ids: list[int], dtype: np.dtype) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        write_shard(tmp_path / "a.shard", ids, dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_mapped_shard_cannot_be_written(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.shard", [1, 2, 3], UINT16)
    ids = open_shard(tmp_path / "a.shard")
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 5


def damaged(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-1], "is truncated: 83 bytes, but its header says 84"),
        (lambda whole: whole + b"x", "is too long: 85 bytes, but its header says 84"),
        (lambda whole: whole[:40], "is truncated: 40 bytes, but the header alone has 64"),
        (lambda whole: whole[:5], "is not a GlassGPT token shard"),
        (lambda whole: b"", "is not a GlassGPT token shard"),
        (lambda whole: b"\x93NUMPY" + whole, "is not a GlassGPT token shard"),
        (lambda whole: whole[:8] + b"\x02" + whole[9:], "has format version 2; this GlassGPT reads version 1"),
        (lambda whole: whole[:12] + b"\x03" + whole[13:], "damaged header: 3 bytes per id"),
    ],
)
def test_a_truncated_or_foreign_file_is_refused_when_opened(tmp_path: Path, damage, message: str) -> None:
    write_shard(tmp_path / "a.shard", range(10), UINT16)
    path = damaged(tmp_path / "b.shard", damage((tmp_path / "a.shard").read_bytes()))
    for open_it in (open_shard, read_header, verify_shard, lambda path: TokenArray([path])):
        with pytest.raises(UserError, match=f"b.shard.*{message}"):
            open_it(path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read shard .*gone\.shard: No such file"):
        open_shard(tmp_path / "gone.shard")


def test_an_altered_shard_opens_but_does_not_verify(tmp_path: Path) -> None:
    path = tmp_path / "a.shard"
    write_shard(path, range(10), UINT16)
    whole = path.read_bytes()
    path.write_bytes(whole[:70] + b"\x63" + whole[71:])
    assert open_shard(path)[3] == 99
    with pytest.raises(UserError, match=r"shard .*a\.shard was altered"):
        verify_shard(path)


def test_a_shard_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.shard", [1], UINT16)
    assert is_shard(tmp_path / "a.shard")
    assert not is_shard(damaged(tmp_path / "b", b"GLASS"))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> TokenArray:
    """Ids 0…99 over five shards of both types, two of them empty."""
    folder = tmp_path_factory.mktemp("shards")
    cuts = [0, 30, 30, 31, 100, 100]
    for number in range(5):
        dtype = UINT32 if number == 2 else UINT16
        write_shard(folder / f"{number}.shard", range(cuts[number], cuts[number + 1]), dtype)
    return TokenArray([folder / f"{number}.shard" for number in range(5)])


@settings(max_examples=200)
@given(st.integers(0, 100), st.integers(0, 100))
def test_a_slice_is_the_same_across_shards(several: TokenArray, start: int, stop: int) -> None:
    start, stop = sorted((start, stop))
    ids = several.slice(start, stop)
    assert ids.dtype == np.int64
    assert ids.tolist() == list(range(start, stop))


def test_a_token_array_has_the_length_and_widest_type_of_its_shards(several: TokenArray) -> None:
    assert len(several) == 100
    assert several.dtype == UINT32


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (0, 101), (101, 101)])
def test_a_slice_outside_is_an_error(several: TokenArray, start: int, stop: int) -> None:
    with pytest.raises(IndexError):
        several.slice(start, stop)


def test_a_shard_that_is_cut_while_it_is_mapped_is_an_error_not_a_crash(tmp_path: Path) -> None:
    """Reading a mapped page behind the end of its file kills the process (SIGBUS)."""
    for name in ("a.shard", "b.shard"):
        write_shard(tmp_path / name, np.arange(100_000), UINT32)
    tokens = TokenArray([tmp_path / "a.shard", tmp_path / "b.shard"])
    os.truncate(tmp_path / "b.shard", 5000)
    (tmp_path / "a.shard").unlink()  # a file that is gone stays readable
    assert tokens.slice(50_000, 50_003).tolist() == [50_000, 50_001, 50_002]
    for part in (tokens, tokens.part(10, 200_000)):
        with pytest.raises(UserError, match=r"b\.shard was cut in use, from 400,064 bytes to 5,000: restore it"):
            part.slice(len(part) - 10, len(part))


def test_a_slice_may_be_changed_without_harm(several: TokenArray) -> None:
    several.slice(0, 5)[:] = 7
    assert several.slice(0, 5).tolist() == [0, 1, 2, 3, 4]


def test_a_token_array_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one shard"):
        TokenArray([])
