"""Compressed files: read as the plain ones, and refused by name where they are cut short or damaged."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from glassgpt.data.compressed import open_stream, plain_name
from glassgpt.errors import UserError

DATA = b"".join(b"line %d of a text\n" % number for number in range(20_000))
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
    "": bytes,
}
packed = pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESS if suffix])


def write(folder: Path, suffix: str, data: bytes) -> Path:
    path = folder / f"corpus.txt{suffix}"
    path.write_bytes(data)
    return path


def read(path: Path) -> bytes:
    with open_stream(path) as (stream, _):
        return stream.read()


@pytest.mark.parametrize("suffix", COMPRESS)
def test_every_compression_gives_the_plain_bytes(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, COMPRESS[suffix](DATA))
    assert read(path) == DATA
    assert plain_name(path).name == "corpus.txt"


@packed
def test_parts_that_were_packed_one_after_another_are_read_as_one(tmp_path: Path, suffix: str) -> None:
    pack = COMPRESS[suffix]
    assert read(write(tmp_path, suffix, pack(DATA) + pack(b"") + pack(b"the end"))) == DATA + b"the end"


@packed
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESS[suffix](DATA)
    for length in (5, len(whole) // 2, len(whole) - 1):
        path = write(tmp_path, suffix, whole[:length])
        with pytest.raises(UserError, match=rf"corpus\.txt{suffix} is truncated"):
            read(path)


@packed
def test_what_was_never_compressed_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, b"plain text, whatever its name says")
    with pytest.raises(UserError, match=rf"corpus\.txt{suffix} is damaged"):
        read(path)


def test_the_place_in_the_file_itself_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, ".gz", gzip.compress(DATA))
    with open_stream(path) as (stream, raw):
        stream.read()
        assert raw.tell() == path.stat().st_size


def test_a_missing_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*gone\.gz"):
        read(tmp_path / "gone.gz")
