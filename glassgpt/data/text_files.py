"""Files, folders and stdin as text: UTF-8, kept exactly, refused with the place where it is not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from glassgpt.errors import UserError

_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_SNIFFED = 8192  # bytes in which a NUL marks a file of a folder as binary, the rule of git and grep


def read_file(path: Path) -> str:
    """The text of one file. Line ends are kept as they are; a UTF-8 byte-order mark at its start is dropped.

    Raises UserError for a file that is missing, empty, binary or not UTF-8, and for a pipe or a device: reading one may
    never end, and gives no second time the text that a run must find again.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a pipe or a device, not a file: pipe its text into --data - instead")
    text = decode(_read_bytes(path), str(path))
    if not text:
        raise UserError(f"{path} is empty: there is no text to learn from")
    return text


def read_stdin() -> str:
    """All of stdin as text, by the rules of `read_file`."""
    if sys.stdin is None or sys.stdin.isatty():  # None: a program without a console
        raise UserError("the text '-' is stdin, but nothing is piped into it: write `… < FILE` or name the file")
    text = decode(sys.stdin.buffer.read(), "stdin")
    if not text:
        raise UserError("stdin is empty: there is no text to learn from")
    return text


def read_folder(folder: Path) -> tuple[str, str]:
    """The text of all text files below `folder`, and one line on which were taken.

    Files come in the order of their relative paths, joined by a newline. Hidden files and folders (named with a dot)
    are left out, and so are empty files and binary ones (a NUL among the first 8 KiB). Any other file must be UTF-8.
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
    return "\n".join(texts), f"{len(texts)} text file{'s' if len(texts) > 1 else ''}{skipped}"


def decode(data: bytes, where: str) -> str:
    """UTF-8 `data` as text, a byte-order mark dropped; an error names `where` and the offset of the first bad byte.

    A NUL byte is UTF-8 but never prose: it counts as bad, so that a database or a picture is not trained on.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        bad, reason = error.start, "is not UTF-8"
    else:
        bad, reason = data.find(b"\0"), ""
        if bad < 0:
            return text.removeprefix("\ufeff")
    nul = data.find(b"\0", 0, bad)
    if data.startswith(_UTF16_BOMS):
        raise UserError(f"{where} is UTF-16, not UTF-8 (byte 0x{data[0]:02x} at offset 0): convert it to UTF-8 first")
    if nul >= 0 or not reason:
        bad, reason = (nul if nul >= 0 else bad), "is binary"
    raise UserError(f"{where} {reason}: byte 0x{data[bad]:02x} at offset {bad}; give a UTF-8 text file")


def is_binary(path: Path) -> bool:
    """Whether a NUL is among the first 8 KiB of a file, as git and grep ask."""
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(_SNIFFED)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def visible_files(folder: Path) -> Iterator[Path]:
    """The files below `folder` that are not hidden, in the order of their relative paths."""

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read folder {error.filename}: {error.strerror}") from error

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    # Sorted by the parts of the path: the same on every file system and operating system.
    return (path for path in sorted(found, key=lambda path: path.relative_to(folder).parts) if path.is_file())
