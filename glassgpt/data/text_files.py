"""Reads files, folders and stdin as UTF-8 text, unchanged. Invalid input is rejected with its byte offset."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from glassgpt.data.compressed import SUFFIX_OF, compression
from glassgpt.errors import UserError, counted

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_COPIES = 2  # a text is in memory as bytes and as characters while it is read
_SNIFFED = 8192  # a file of a folder is binary if its first bytes, this many, contain a NUL: the rule of git and grep


def read_file(path: Path) -> str:
    """The text of one file. Line ends are not changed; a UTF-8 byte-order mark at the start is dropped.

    Raises UserError for a file that is missing, empty, binary or not UTF-8, and for a pipe or a device. Reading one may
    never end, and a resumed run could not read the same text again.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a pipe or a device, not a file: pipe its text into --data - instead")
    text = decode(_read_bytes(path), str(path))
    if not text:
        raise UserError(f"{path} is empty: there is no text in it")
    return text


def read_stdin() -> str:
    """The text of stdin, with the rules of `read_file`."""
    if sys.stdin is None or sys.stdin.isatty():  # None: a program without a console
        raise UserError("the text '-' is stdin, but nothing is piped into it: write `… < FILE` or name the file")
    text = decode(sys.stdin.buffer.read(), "stdin")
    if not text:
        raise UserError("stdin is empty: there is no text in it")
    return text


def read_folder(folder: Path) -> tuple[str, str]:
    """The text of all text files below `folder`, and one line that says how many files were used.

    Files are joined by newlines in the order of their relative paths. Hidden files and folders (names that start with
    a dot), empty files and binary files (a NUL in the first 8 KiB) are skipped. Any other file must be UTF-8.
    """
    texts, n_skipped = [], 0
    for path in visible_files(folder):
        data = _read_bytes(path)
        if b"\0" in data[:_SNIFFED] or not data.removeprefix(_BOM):
            n_skipped += 1
        else:
            texts.append(decode(data, str(path)))
    skipped = f", {n_skipped} empty or binary left out" if n_skipped else ""
    if not texts:
        raise UserError(f"folder {folder} holds no text files{skipped}: there is no text to learn from")
    return "\n".join(texts), f"{counted(len(texts), 'text file')}{skipped}"


def decode(data: bytes, where: str) -> str:
    """Decodes UTF-8 and drops a byte-order mark. Raises UserError with `where` and the offset of the first bad byte.

    A NUL byte is valid UTF-8 but never occurs in prose. It counts as bad, so that databases and images are rejected.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        bad, reason = error.start, "is not UTF-8"
    else:
        bad, reason = data.find(b"\0"), ""
        if bad < 0:
            return text.removeprefix("\ufeff")
    if kind := compression(data):
        raise UserError(
            f"{where} is {kind}: use `glassgpt data prepare FILE --out DIR`, which reads compressed files with names "
            f"that end with {SUFFIX_OF[kind]}, or decompress it"
        )
    nul = data.find(b"\0", 0, bad)
    if data.startswith(_UTF16_BOMS):
        raise UserError(f"{where} is UTF-16, not UTF-8 (byte 0x{data[0]:02x} at offset 0): convert it to UTF-8 first")
    if nul >= 0 or not reason:
        bad, reason = (nul if nul >= 0 else bad), "is binary"
    raise UserError(f"{where} {reason}: byte 0x{data[bad]:02x} at offset {bad}; give a UTF-8 text file")


def is_binary(path: Path) -> bool:
    """Whether the first 8 KiB of a file contain a NUL, the rule of git and grep."""
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(_SNIFFED)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _read_bytes(path: Path) -> bytes:
    try:
        size, memory = path.stat().st_size, _memory()
        if _COPIES * size > memory:
            raise UserError(
                f"{path} has {size / 1e9:,.1f} GB, too much for this machine's memory of {memory / 1e9:,.1f} GB: make "
                f"shards of it first, with `glassgpt data prepare {path} --out DIR`"
            )
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _memory() -> float:
    """Bytes of memory of this machine; infinite where the system does not say (Windows)."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def visible_files(folder: Path) -> Iterator[Path]:
    """The files below `folder` that are not hidden, sorted by relative path."""

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read folder {error.filename}: {error.strerror}") from error

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    # Sorted by path components: the same order on every file system and operating system.
    return (path for path in sorted(found, key=lambda path: path.relative_to(folder).parts) if path.is_file())
