"""Token shards: files with a 64-byte header, then little-endian ids. They are memory-mapped, not read into RAM.

    offset  bytes  field
         0      8  magic b"GLASSTOK"
         8      4  version, 1
        12      4  bytes per id: 2 (uint16) or 4 (uint32)
        16      8  count of ids
        24     32  sha256 of the payload
        56      8  zero
        64         payload: count × bytes per id

A writer writes the header last and renames the file into place, so a shard that exists is complete.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glassgpt.data.foreign import SUFFIXES as FOREIGN_SUFFIXES
from glassgpt.data.foreign import open_foreign
from glassgpt.errors import UserError
from glassgpt.files import check_regular, new_file

MAGIC = b"GLASSTOK"
VERSION = 1
_HEADER = struct.Struct("<8sIIQ32s8x")
_DTYPES: dict[int, np.dtype[np.unsignedinteger]] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}


@dataclass(frozen=True)
class ShardHeader:
    """The header of a shard: type and number of its ids, and the sha256 of their bytes."""

    dtype: np.dtype[np.unsignedinteger]
    count: int
    sha256: bytes

    def to_bytes(self) -> bytes:
        """The 64 bytes at the start of the file."""
        return _HEADER.pack(MAGIC, VERSION, self.dtype.itemsize, self.count, self.sha256)


def dtype_for(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """The smaller of uint16 and uint32 that holds every id below `vocab_size`."""
    return _DTYPES[2] if vocab_size <= 1 << 16 else _DTYPES[4]


class ShardWriter:
    """Appends ids to a shard and hashes them as it writes; created by `shard_writer`."""

    def __init__(self, file: BinaryIO, dtype: np.dtype[np.unsignedinteger]) -> None:
        self._file = file
        self._dtype = dtype
        self._count = 0
        self._hash = hashlib.sha256()
        file.write(bytes(_HEADER.size))

    def append(self, ids: ArrayLike) -> None:
        """Appends ids. Raises ValueError for an id outside the range of the shard's type: it would wrap around."""
        array = np.asarray(ids)
        if array.size and (array.min() < 0 or array.max() > np.iinfo(self._dtype).max):
            raise ValueError(f"ids from {array.min()} to {array.max()} do not fit {self._dtype.name}")
        payload = array.astype(self._dtype).tobytes()
        self._file.write(payload)
        self._hash.update(payload)
        self._count += array.size

    def header(self) -> ShardHeader:
        """The header of what has been appended so far."""
        return ShardHeader(self._dtype, self._count, self._hash.digest())


@contextmanager
def shard_writer(path: Path, dtype: np.dtype[np.unsignedinteger]) -> Iterator[ShardWriter]:
    """Yields a writer for `path`. The file appears, complete, when the block ends without an error."""
    with new_file(path) as file:
        writer = ShardWriter(file, dtype)
        yield writer
        file.seek(0)
        file.write(writer.header().to_bytes())


def write_shard(path: Path, ids: ArrayLike, dtype: np.dtype[np.unsignedinteger]) -> None:
    """Writes all of `ids` as one shard."""
    with shard_writer(path, dtype) as writer:
        writer.append(ids)


def is_shard(path: Path) -> bool:
    """Whether `path` is a file that begins like a token shard, complete or not."""
    if not path.is_file():  # a pipe would wait for its writer
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_header(path: Path) -> ShardHeader:
    """The header of a shard, checked against the size of its file.

    Raises UserError, naming file and reason, for a file that is missing, foreign, of another version or truncated.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            size = file.seek(0, 2)
    except OSError as error:
        raise UserError(f"cannot read shard {path}: {error.strerror}") from error
    if head[: len(MAGIC)] != MAGIC:
        raise UserError(f"{path} is not a GlassGPT token shard: it does not begin with {MAGIC.decode()}")
    if len(head) < _HEADER.size:
        raise UserError(f"shard {path} is truncated: {size} bytes, but the header alone has {_HEADER.size}")
    _, version, itemsize, count, sha256 = _HEADER.unpack(head)
    if version != VERSION:
        raise UserError(f"shard {path} has format version {version}; this GlassGPT reads version {VERSION}")
    if itemsize not in _DTYPES:
        raise UserError(f"shard {path} has a damaged header: {itemsize} bytes per id, not 2 or 4")
    expected = _HEADER.size + count * itemsize
    if size != expected:
        problem = "truncated" if size < expected else "too long"
        raise UserError(f"shard {path} is {problem}: {size} bytes, but its header says {expected}")
    return ShardHeader(_DTYPES[itemsize], count, sha256)


def open_shard(path: Path) -> NDArray[np.unsignedinteger]:
    """The ids of a shard (count,), memory-mapped and read-only. Raises UserError like `read_header`."""
    header = read_header(path)
    if header.count == 0:
        return np.empty(0, header.dtype)
    mapped = np.memmap(path, header.dtype, mode="r", offset=_HEADER.size, shape=(header.count,))
    # The plain view slices several times faster than np.memmap, and keeps the mapping alive.
    return mapped.view(np.ndarray)


def open_tokens(path: Path) -> NDArray[np.integer]:
    """The ids of a token file, our own or foreign: (count,), memory-mapped and read-only."""
    return open_foreign(path) if path.suffix in FOREIGN_SUFFIXES and not is_shard(path) else open_shard(path)


def verify_shard(path: Path) -> ShardHeader:
    """Reads the full shard and compares its sha256. Raises UserError like `read_header`, and for altered ids."""
    header = read_header(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(_HEADER.size)
        while piece := file.read(1 << 20):
            digest.update(piece)
    if digest.digest() != header.sha256:
        raise UserError(
            f"shard {path} was altered: its ids have sha256 {digest.hexdigest()}, its header says {header.sha256.hex()}"
        )
    return header


class TokenArray:
    """One virtual array of ids that spans several token files, in the given order."""

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise ValueError("a TokenArray needs at least one shard")
        self.paths = tuple(paths)
        self._place([open_tokens(path) for path in paths])
        self._sizes = [path.stat().st_size for path in paths]

    def _place(self, shards: list[NDArray[np.integer]]) -> None:
        self._shards = shards
        self._starts = [0, *accumulate(len(shard) for shard in shards)]

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def dtype(self) -> np.dtype[np.integer]:
        """The widest of the shards' types, as stored on disk."""
        return max((shard.dtype for shard in self._shards), key=lambda dtype: dtype.itemsize)

    def part(self, start: int, stop: int) -> TokenArray:
        """Ids `start` to `stop` as another TokenArray, without copying them."""
        part = copy(self)
        part._place(
            [
                shard[max(start - offset, 0) : max(stop - offset, 0)]
                for shard, offset in zip(self._shards, self._starts, strict=False)
            ]
        )
        return part

    def _check_size(self, number: int) -> None:
        """Raises UserError for a file that was cut since it was mapped: reading it would kill the process (SIGBUS).

        A file that is cut in the middle of a read still does so.
        """
        with suppress(FileNotFoundError):  # the ids of a deleted file stay readable
            size = self.paths[number].stat().st_size
            if size < self._sizes[number]:
                raise UserError(
                    f"shard {self.paths[number]} was cut in use, from {self._sizes[number]:,} bytes to {size:,}: "
                    "restore it"
                )

    def slice(self, start: int, stop: int) -> NDArray[np.int64]:
        """A copy of ids `start` to `stop`: (stop - start,) int64. Raises IndexError outside the array.

        Raises UserError if a file was cut since it was opened.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"ids {start} to {stop} of a token array of {len(self)}")
        first = bisect_right(self._starts, start) - 1
        pieces = []
        for number, (shard, offset) in enumerate(zip(self._shards[first:], self._starts[first:], strict=False), first):
            if offset >= stop:
                break
            self._check_size(number)
            pieces.append(shard[max(start - offset, 0) : stop - offset])
        if len(pieces) == 1:
            return pieces[0].astype(np.int64)
        return np.concatenate([np.empty(0, np.int64), *pieces]).astype(np.int64, copy=False)
