"""Corpora of any size: what a command names, as batches of documents in a fixed order that can begin anywhere."""

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

from glassgpt.data.compressed import SUFFIXES, plain_name
from glassgpt.data.corpora import Corpus
from glassgpt.data.documents import KINDS, TEXT, Piece, check_column, kind_of, read_documents
from glassgpt.data.text_files import is_binary, visible_files
from glassgpt.errors import UserError
from glassgpt.tokenizers.patterns import safe_slices

Position = Any  # where a batch begins: plain values, as JSON keeps them

BATCH = 1 << 20  # characters, about, in a batch
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


class DocumentBatch(NamedTuple):
    """Some pieces of documents, and the place from which the source gives them again."""

    position: Position
    pieces: list[Piece]
    fraction: float | None  # of the source that lies before the batch's end; None where that is not known


class Source(Protocol):
    """A corpus that is read as a stream."""

    @property
    def name(self) -> str:
        """Short, for headings."""

    def pinned(self, earlier: dict[str, Any] | None) -> Source:
        """The source at the state in which `earlier` settings found it, or at its present one."""

    def settings(self) -> dict[str, Any]:
        """What decides the documents and their order, ready for JSON: equal where these are equal."""

    def batches(self, start: Position = None, *, in_pieces: bool = True) -> Iterator[DocumentBatch]:
        """The documents from `start`, the position of an earlier batch, or from the first."""


@dataclass(frozen=True)
class LocalFiles:
    """The documents of files on this machine, file by file. A position is [number of the file, number in the file]."""

    name: str
    files: tuple[Path, ...]
    column: str = "text"

    def pinned(self, earlier: dict[str, Any] | None) -> LocalFiles:
        return self  # what the files were is not kept anywhere; whether they still are shows in `settings`

    def settings(self) -> dict[str, Any]:
        """The files with their sizes and times: a file that was changed has other documents."""
        stats = [(path, path.stat()) for path in self.files]
        files = [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]
        only_text = all(kind_of(path) == TEXT for path in self.files)
        return {"files": files, **({} if only_text else {"column": self.column})}

    def batches(self, start: Position = None, *, in_pieces: bool = True) -> Iterator[DocumentBatch]:
        """The documents in batches of about a million characters."""
        sizes = [path.stat().st_size for path in self.files]
        total = max(sum(sizes), 1)
        first_file, first_piece = start or (0, 0)
        position, pieces, size = None, [], 0
        before = sum(sizes[:first_file])
        for number, path in enumerate(self.files[first_file:], first_file):
            begin = first_piece if number == first_file else 0
            for index, piece in enumerate(read_documents(path, self.column, begin, in_pieces=in_pieces), begin):
                position = position or [number, index]
                pieces.append(piece)
                size += len(piece.text)
                if size >= BATCH:
                    yield DocumentBatch(position, pieces, (before + piece.bytes_read) / total)
                    position, pieces, size = None, [], 0
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

    def batches(self, start: Position = None, *, in_pieces: bool = True) -> Iterator[DocumentBatch]:
        text = self.corpus.text
        pieces = list(safe_slices(text, BATCH)) if in_pieces else [text]
        for number, piece in enumerate(pieces[start or 0 :], start or 0):
            yield DocumentBatch(number, [Piece(piece, number == 0, self.name, 0)], (number + 1) / len(pieces))


def find_files(names: Sequence[str], column: str) -> LocalFiles:
    """The files that names, patterns and folders mean, in the order given; those of a folder by their paths.

    A folder that holds parquet, JSON lines or CSV means those files alone, and must hold one kind of them; any other
    folder means its text files. Raises UserError for what is not there, is empty, or is mixed.
    """
    files: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            files += _files_of_folder(path)
        elif path.is_file():
            files.append(path)
        else:
            files += _files_of_pattern(name)
    files = [path.absolute() for path in files]
    repeated = next((path for path in files if files.count(path) > 1), None) if len(set(files)) < len(files) else None
    if repeated:
        raise UserError(f"{repeated} is named twice: its documents would come twice")
    for path in files:
        check_column(path, column)
    return LocalFiles(textwrap.shorten(", ".join(names), 200, placeholder=" …"), tuple(files), column)


def is_local(name: str) -> bool:
    """Whether a name means files of this machine, be they there or not, and no data set of the hub."""
    if os.path.exists(os.path.expanduser(name)) or glob.has_magic(name):  # noqa: PTH110, PTH111 (any text is a name)
        return True
    return Path(name).suffix.lower() in (*KINDS, *SUFFIXES, ".txt", ".md") or not _HUB_ID.fullmatch(name)


def _files_of_pattern(pattern: str) -> list[Path]:
    found = sorted(path for path in map(Path, glob.glob(os.path.expanduser(pattern), recursive=True)) if path.is_file())  # noqa: PTH111, PTH207
    if not found:
        raise UserError(f"there is no file, folder or pattern '{pattern}' that matches a file")
    return found


def _files_of_folder(folder: Path) -> list[Path]:
    files = list(visible_files(folder))
    kinds = {kind_of(path) for path in files} - {TEXT}
    if len(kinds) > 1:
        raise UserError(f"{folder} holds {' and '.join(sorted(kinds))}: name the files that you mean, with a pattern")
    records = [path for path in files if kind_of(path) in kinds]
    chosen = records or [path for path in files if plain_name(path) != path or not is_binary(path)]
    if not chosen:
        raise UserError(f"folder {folder} holds no text, parquet, JSON lines or CSV: there is nothing to prepare")
    return chosen
