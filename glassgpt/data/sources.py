"""Streams a corpus of any size as batches of documents, in a fixed order, starting from any position."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from glassgpt.config import Count, convert
from glassgpt.data.compressed import SUFFIXES, plain_name
from glassgpt.data.corpora import Corpus
from glassgpt.data.documents import KINDS, TEXT, Piece, check_column, kind_of, read_documents
from glassgpt.data.text_files import is_binary, visible_files
from glassgpt.errors import UserError, shown
from glassgpt.files import user_path
from glassgpt.tokenizers.patterns import safe_slices

Position = Any  # where a batch begins; JSON-ready values

BATCH = 1 << 20  # approximate number of characters in a batch
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


class DocumentBatch(NamedTuple):
    """Pieces of documents, and the position from which the source gives them again."""

    position: Position
    pieces: list[Piece]
    fraction: float | None  # of the source up to the end of the batch; None if unknown


class Source(Protocol):
    """A corpus that is read as a stream."""

    @property
    def name(self) -> str:
        """Short, for headings."""

    def pinned(self, earlier: dict[str, Any] | None) -> Source:
        """The source at the revision in the `earlier` settings, or at its current one."""

    def settings(self) -> dict[str, Any]:
        """JSON-ready settings that determine the documents and their order: equal settings, equal documents."""

    def check_position(self, position: Any) -> None:
        """Raises UserError if a value that was read from a file is not a position in this source."""

    def batches(self, start: Position = None, *, cut: re.Pattern[str] | None = None) -> Iterator[DocumentBatch]:
        """The documents from `start`, the position of an earlier batch; by default from the beginning.

        A long text is split into pieces where `cut`, the `safe_cut` of the tokenizer, matches; None: not split.
        Raises UserError if there is no document at `start`.
        """


@dataclass(frozen=True)
class LocalFiles:
    """The documents of files on this machine, file by file. A position is [number of the file, number in the file]."""

    name: str
    files: tuple[Path, ...]
    column: str = "text"

    def pinned(self, earlier: dict[str, Any] | None) -> LocalFiles:
        return self  # old versions of a file are not available; `settings` shows whether it changed

    def settings(self) -> dict[str, Any]:
        """The files with their sizes and modification times, to detect changed files."""
        stats = [(path, path.stat()) for path in self.files]
        files = [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]
        only_text = all(kind_of(path) == TEXT for path in self.files)
        return {"files": files, **({} if only_text else {"column": self.column})}

    def check_position(self, position: Any) -> None:
        file, _ = convert(tuple[Count, Count], position, "position")
        if file >= len(self.files):
            raise UserError(f"position = {shown(position)}: there are {len(self.files)} files, counted from 0")

    def batches(self, start: Position = None, *, cut: re.Pattern[str] | None = None) -> Iterator[DocumentBatch]:
        """The documents in batches of about a million characters."""
        sizes = [path.stat().st_size for path in self.files]
        total = max(sum(sizes), 1)
        first_file, first_piece = start or (0, 0)
        position, pieces, size = None, [], 0
        before = sum(sizes[:first_file])
        for number, path in enumerate(self.files[first_file:], first_file):
            begin = first_piece if number == first_file else 0
            index = begin - 1
            for index, piece in enumerate(read_documents(path, self.column, begin, cut=cut), begin):
                position = position or [number, index]
                pieces.append(piece)
                size += len(piece.text)
                if size >= BATCH:
                    yield DocumentBatch(position, pieces, (before + piece.bytes_read) / total)
                    position, pieces, size = None, [], 0
            if index < begin and start is not None and number == first_file:
                raise _no_place(start, path)
            before += sizes[number]
        if pieces:
            yield DocumentBatch(position, pieces, 1.0)


@dataclass(frozen=True)
class OneText:
    """A text that is in memory anyhow, as one document. A position is the number of a piece."""

    corpus: Corpus

    @property
    def name(self) -> str:
        return self.corpus.name

    def pinned(self, earlier: dict[str, Any] | None) -> OneText:
        return self

    def settings(self) -> dict[str, Any]:
        return {"text_sha256": hashlib.sha256(self.corpus.text.encode()).hexdigest()}

    def check_position(self, position: Any) -> None:
        convert(Count, position, "position")

    def batches(self, start: Position = None, *, cut: re.Pattern[str] | None = None) -> Iterator[DocumentBatch]:
        text = self.corpus.text
        pieces = list(safe_slices(text, BATCH, cut))
        if start is not None and start >= len(pieces):
            raise _no_place(start, self.name)
        for number, piece in enumerate(pieces[start or 0 :], start or 0):
            yield DocumentBatch(number, [Piece(piece, number == 0, self.name, 0)], (number + 1) / len(pieces))


def _no_place(position: Position, where: Path | str) -> UserError:
    return UserError(
        f"{where} has nothing at position {position}, where this is to continue: choose another --out, or delete the"
        " folder to start again"
    )


def find_files(names: Sequence[str], column: str) -> LocalFiles:
    """The files that `names` (files, glob patterns and folders) stand for, in the given order, in a folder by path.

    A folder with parquet, JSON lines or CSV files stands for those files only, which must be of one kind. Any other
    folder stands for its text files. Raises UserError if files are missing, repeated or of mixed kinds.
    """
    files: list[Path] = []
    for name in names:
        if not name:  # as a path, it would be the current folder
            raise UserError("a SOURCE is empty: give files, folders or file name patterns")
        path = user_path(name)
        if path.is_dir():
            files += _files_of_folder(path)
        elif path.is_file():
            files.append(path)
        else:
            files += _files_of_pattern(name)
    files = [path.absolute() for path in files]
    repeated = next((path for path in files if files.count(path) > 1), None) if len(set(files)) < len(files) else None
    if repeated:
        raise UserError(f"{repeated} is named twice: its documents would be used twice")
    for path in files:
        check_column(path, column)
    return LocalFiles(textwrap.shorten(", ".join(names), 200, placeholder=" …"), tuple(files), column)


def is_local(name: str) -> bool:
    """Whether a name stands for local files, existing or not, and not for a dataset of the hub."""
    if os.path.exists(os.path.expanduser(name)) or glob.has_magic(name):  # noqa: PTH110, PTH111 (any text is a name)
        return True
    return Path(name).suffix.lower() in (*KINDS, *SUFFIXES, ".txt", ".md") or not _HUB_ID.fullmatch(name)


def _files_of_pattern(pattern: str) -> list[Path]:
    found = sorted(path for path in map(Path, glob.glob(os.path.expanduser(pattern), recursive=True)) if path.is_file())  # noqa: PTH111, PTH207
    if not found:
        raise UserError(f"no file, folder or pattern '{pattern}' matches a file")
    return found


def _files_of_folder(folder: Path) -> list[Path]:
    files = list(visible_files(folder))
    kinds = {kind_of(path) for path in files} - {TEXT}
    if len(kinds) > 1:
        raise UserError(f"{folder} holds {' and '.join(sorted(kinds))}: name the files to use, with a pattern")
    records = [path for path in files if kind_of(path) in kinds]
    chosen = records or [path for path in files if plain_name(path) != path or not is_binary(path)]
    if not chosen:
        raise UserError(f"folder {folder} holds no text, parquet, JSON lines or CSV files: there is nothing to prepare")
    return chosen
