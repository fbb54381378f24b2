"""Plain or compressed files as byte streams. A truncated or damaged file raises an error, at whatever byte it shows."""

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
SUFFIX_OF = dict(zip(("gzip", "bzip2", "xz", "Zstandard"), SUFFIXES, strict=True))
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "Zstandard"}  # the first bytes
_CHUNK = 1 << 18  # compressed bytes per read
_LARGEST_WINDOW = 1 << 31  # as of `zstd --long=31`; the library's default limit rejects some `zstd --ultra` files


def plain_name(path: Path) -> Path:
    """`path` without its compression suffix: corpus.jsonl for corpus.jsonl.gz."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def compression(data: bytes) -> str | None:
    """The compression that the first bytes of a file say; None if they are of none."""
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)


@contextlib.contextmanager
def open_stream(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Yields the decompressed contents (format by suffix) and the raw file, whose `tell` gives the reading progress.

    Raises UserError, naming the file, if it cannot be read or its compressed data are truncated or damaged.
    """
    with _errors_as_user_errors(path), path.open("rb") as raw, _decompress(path.suffix.lower(), raw) as stream:
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
def _errors_as_user_errors(path: Path) -> Iterator[None]:
    """Turns any reading error into a UserError with the file's name. The decompressors share no error class."""
    try:
        yield
    except EOFError as error:
        raise UserError(f"{path} is truncated: its compressed data end too early; download it again") from error
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile, _Damaged) as error:
        raise UserError(f"{path} is damaged: {error}; download it again") from error
    except OSError as error:
        if path.suffix.lower() == ".bz2" and error.errno is None:  # bz2 raises this for data that are not bzip2
            raise UserError(f"{path} is damaged: {error}; download it again") from error
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


class _Damaged(Exception):
    """Zstandard data that do not decompress."""


class _ZstandardFile(io.RawIOBase):
    """Reads consecutive Zstandard frames. The library's own reader does not notice a truncated file."""

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
            compressed = self._take_unused() or self._raw.read(_CHUNK)
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

    def _take_unused(self) -> bytes:
        """The bytes after the end of a finished frame: the start of the next frame."""
        if self._frame is None or not self._frame.eof:
            return b""
        unused: bytes = self._frame.unused_data
        self._frame = None
        return unused
