"""Finds, checks and opens token files, our own or foreign, as a training and a validation split.

A word in its name assigns a file to a split: `edufineweb_val_000000.npy`, `train.bin`. The numbers at the end of the
names must have no gap. All files must have one format and one type of ids. Every id must be in the vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from glassgpt.data.corpora import NAMES, STDIN
from glassgpt.data.foreign import SUFFIXES, read_layout
from glassgpt.data.shards import TokenArray, is_shard, open_tokens, read_header
from glassgpt.errors import UserError
from glassgpt.files import check_regular, user_path

OURS = "glassgpt"
_VAL_WORD = re.compile(r"(^|[^a-z])(val|valid|validation)([^a-z]|$)", re.IGNORECASE)
_TRAIN_WORD = re.compile(r"(^|[^a-z])(train|training)([^a-z]|$)", re.IGNORECASE)
_NUMBERED = re.compile(r"(.*?)([0-9]+)")
_SAMPLE = 1 << 16  # ids at both ends of each file that are checked when it is opened
_FINGERPRINTED = 1 << 16  # bytes at both ends of each file that its fingerprint depends on
_READ = 1 << 22  # ids read at a time by `verify_ids`


@dataclass(frozen=True)
class TokenFiles:
    """The token files of a corpus. If `val` is empty, the end of `train` is used for validation."""

    path: Path  # the folder, or the only file
    train: tuple[Path, ...]
    val: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return self.train + self.val

    def open(self, val_fraction: float, vocab_size: int) -> tuple[TokenArray, TokenArray]:
        """(training split, validation split). Raises UserError for files that do not belong together."""
        self.check()
        for path in self.files:
            _check_ends(path, vocab_size)
        tokens = TokenArray(self.train)
        if self.val:
            return tokens, TokenArray(self.val)
        n_train = int((1 - val_fraction) * len(tokens))
        return tokens.part(0, n_train), tokens.part(n_train, len(tokens))

    def check(self) -> tuple[str, np.dtype[np.integer]]:
        """The common format and id type of the files. Raises UserError if they differ, or if a number is missing."""
        _check_numbers(self.files)
        kinds = {path: describe_file(path) for path in self.files}
        first, *others = kinds
        for path in others:
            if kinds[path] != kinds[first]:
                (one, dtype), (other, other_dtype) = kinds[first], kinds[path]
                raise UserError(
                    f"{first} is {one} of {dtype.name} and {path.name} is {other} of {other_dtype.name}: the files of "
                    "a corpus must have the same format; move those that do not belong to it elsewhere"
                )
        return kinds[first]


def local_path(source: str) -> Path | None:
    """The existing file or folder of a source, else None. A known corpus name never stands for a file.

    Raises UserError for the home folder of a user who does not exist.
    """
    if source in NAMES or source == STDIN:
        return None
    try:
        path = user_path(source).absolute()
        return path if path.exists() else None
    except OSError:  # a text given instead of a file name
        return None


def find_token_files(source: str) -> TokenFiles | None:
    """The token files at a path: the file itself, or the foreign token files of a folder; None if there are none."""
    path = local_path(source)
    if path is None:
        return None
    if path.is_file():
        return TokenFiles(path, (path,), ()) if path.suffix in SUFFIXES or is_shard(path) else None
    if not path.is_dir():
        return None
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    val = tuple(file for file in files if _VAL_WORD.search(file.stem))
    train = tuple(file for file in files if file not in val and _TRAIN_WORD.search(file.stem))
    if val and not train:
        raise UserError(f"{path} holds {val[0].name} for validation, but no file to train on: no name contains 'train'")
    return TokenFiles(path, train, val) if train else None


def describe_file(path: Path) -> tuple[str, np.dtype[np.integer]]:
    """The format and id type of a token file, from its header."""
    if path.suffix in SUFFIXES and not is_shard(path):
        layout = read_layout(path)
        return layout.format, layout.dtype
    return OURS, read_header(path).dtype


def shards_key(paths: Iterable[Path]) -> str:
    """A key for the contents of token files: a hash of their names, sizes, and first and last bytes.

    In our own shards, the first bytes include the checksum of the ids.
    """
    parts = [[path.name, _fingerprint(path)] for path in paths]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def verify_ids(path: Path, vocab_size: int) -> int:
    """Checks every id of a file; returns the largest. Raises UserError, with its position, for an id out of range."""
    ids = open_tokens(path)
    largest = -1
    for start in range(0, len(ids), _READ):
        largest = max(largest, _largest(path, ids[start : start + _READ], start, vocab_size))
    return largest


def _check_ends(path: Path, vocab_size: int) -> None:
    ids = open_tokens(path)
    _largest(path, ids[:_SAMPLE], 0, vocab_size)
    start = max(len(ids) - _SAMPLE, 0)
    _largest(path, ids[start:], start, vocab_size)


def _largest(path: Path, ids: np.ndarray, start: int, vocab_size: int) -> int:
    if not len(ids):
        return -1
    outside = ids >= vocab_size
    if ids.dtype.kind == "i":
        outside |= ids < 0
    if outside.any():
        at = int(outside.argmax())
        raise UserError(
            f"{path} has id {ids[at]} at position {start + at}, outside a vocabulary of {vocab_size}: it was made with "
            "another tokenizer, or it is damaged"
        )
    return int(ids.max())


def _check_numbers(files: Sequence[Path]) -> None:
    """Raises UserError for a gap in the numbers at the end of the names, over both splits together."""
    for _, group in groupby(sorted(_numbers(files), key=lambda item: item[:2]), key=lambda item: item[0]):
        for (_, before, earlier), (_, after, later) in pairwise(group):
            if after - before > 1:
                raise UserError(
                    f"{earlier.parent} lacks shard {before + 1}: after {earlier.name} comes {later.name}; download "
                    "what is missing, or rename the files if nothing is"
                )


def _numbers(files: Sequence[Path]) -> Iterator[tuple[str, int, Path]]:
    for path in files:
        if match := _NUMBERED.fullmatch(path.stem):
            family = _TRAIN_WORD.sub(r"\1\3", _VAL_WORD.sub(r"\1\3", match[1]))
            yield family, int(match[2]), path


def _fingerprint(path: Path) -> str:
    try:
        check_regular(path)
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(_FINGERPRINTED)
            file.seek(max(size - _FINGERPRINTED, 0))
            return hashlib.sha256(b"%d:" % size + head + file.read(_FINGERPRINTED)).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
