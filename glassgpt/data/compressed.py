"""Files as byte streams, plain or compressed; one that is cut short or damaged is said to be, wherever that shows."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from glassgpt.errors import UserError

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_CHUNK = 1 << 18  # compressed bytes read at a time
_LARGEST_WINDOW = 1 << 31  # of `zstd --long=31`; without it the library refuses what `zstd --ultra` may write


def plain_name(path: Path) -> Path:
    """`path` without the suffix of its compression: corpus.jsonl for corpus.jsonl.gz."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


@contextlib.contextmanager
def open_stream(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The file's contents, decompressed by its suffix, and the file itself, whose `tell` says how far reading has come.

    Raises UserError, naming the file, where it cannot be read, and where its compressed data are cut short or damaged.
    """
    with _naming(path), path.open("rb") as raw, _decompress(path.suffix.lower(), raw) as stream:
        yield stream, raw


def _decompress(suffix: str, raw: BinaryIO) -> Any:
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if suffix == ".bz2":
        return bz2.BZ2File(raw)
    if suffix == ".xz":
        return lzma.LZMAFile(raw)
    if suffix == ".zst":
        return io.BufferedReader(_ZstandardFile(raw), _CHUNK)
    return contextlib.nullcontext(raw)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Says of which file an error speaks. The decompressors have no class of error in common."""
    try:
        yield
    except EOFError as error:
        raise UserError(f"{path} is cut short: its compressed data end in the middle; fetch it again") from error
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile, _Damaged) as error:
        raise UserError(f"{path} is damaged: {error}; fetch it again") from error
    except OSError as error:
        if path.suffix.lower() == ".bz2" and error.errno is None:  # what bz2 raises for foreign data
            raise UserError(f"{path} is damaged: {error}; fetch it again") from error
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


class _Damaged(Exception):
    """Zstandard data that do not decompress."""


class _ZstandardFile(io.RawIOBase):
    """Zstandard frames, one after another. The library's own reader takes a file that is cut short for a whole one."""

    def __init__(self, raw: BinaryIO) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise UserError("reading .zst files needs zstandard: pip install 'glassgpt[data]'") from error
        self._raw = raw
        self._library = zstandard
        self._frame: Any = None
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            compressed = self._take_rest() or self._raw.read(_CHUNK)
            if not compressed:
                if self._frame is not None:
                    raise EOFError
                return 0
            self._ready = self._feed(compressed)
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _feed(self, compressed: bytes) -> bytes:
        if self._frame is None:
            self._frame = self._library.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
        try:
            return self._frame.decompress(compressed)
        except self._library.ZstdError as error:
            raise _Damaged(error) from error

    def _take_rest(self) -> bytes:
        """What came after the end of a frame, with which the next one begins."""
        if self._frame is None or not self._frame.eof:
            return b""
        rest: bytes = self._frame.unused_data
        self._frame = None
        return rest
