"""The manifest of a dataset: the source of the text, its split and tokenizer, and its shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glassgpt.config import Count, from_dict, record_from_dict
from glassgpt.errors import UserError
from glassgpt.files import new_file, read_json

FORMAT = "glassgpt-data"
VERSION = 1


@dataclass(frozen=True)
class Split:
    """The sizes and shards of one split of the text."""

    characters: Count | None  # None: unknown, because only the ids are available
    bytes: Count | None  # of the text in UTF-8, for information: bits per byte are counted from the ids themselves
    tokens: Count
    shards: tuple[str, ...]  # file names within the folder
    documents: Count | None = None  # documents that begin in it; None: a single text, or not counted

    def __post_init__(self) -> None:
        if not self.shards:
            raise UserError("a split of the text has no shards")


@dataclass(frozen=True)
class TokenizerRecord:
    """Identifies a tokenizer; the tokenizer itself is in its own file."""

    name: str
    vocab_size: Count
    sha256: str  # of its contents, see `tokenizer_sha256` in dataset.py


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json` in a prepared folder, and of `data.json` in a run folder.

    A text that fits into memory is prepared in the cache. Its key is a hash of the inputs, so it can be prepared again.
    A corpus in shards stays where the user put it. Its key is a hash of its files, see token_files.py.
    """

    key: str
    name: str
    source: str  # for `load_text`
    note: str
    text_sha256: str | None  # of the full text in UTF-8; None: a corpus in shards
    val_fraction: float
    tokenizer: TokenizerRecord
    train: Split
    val: Split
    null_documents: Count | None = None  # of a corpus in shards: left out, because null stood in place of a text
    path: str | None = None  # of a corpus in shards: the folder, or the only file, that the run used
    pairs: str | None = None  # the rule that made pairs of the text, which are stored as examples; None: a plain text

    def to_dict(self) -> dict[str, Any]:
        """The manifest as a JSON-ready dict."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Manifest:
        """The inverse of `to_dict`."""
        return from_dict(cls, {k: v for k, v in fields.items() if k not in ("format", "version")}, where="data")

    def save(self, path: Path) -> None:
        """Writes the manifest as JSON, atomically."""
        with new_file(path) as file:
            file.write((json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())


def is_manifest(path: Path) -> bool:
    """Whether `path` begins like a manifest, intact or not. Other programs use the same file names."""
    if not path.is_file():  # a pipe would wait for its writer
        return False
    try:
        with path.open("rb") as file:
            return f'"{FORMAT}"'.encode() in file.read(100)
    except OSError:
        return False


def load_manifest(path: Path) -> Manifest:
    """The manifest in `path`. Raises UserError, naming file and reason, if it is missing, foreign or damaged."""
    fields = read_json(path, "data manifest")
    if fields.pop("format", None) != FORMAT:
        raise UserError(f"{path} is not a data manifest of GlassGPT")
    if (found := fields.pop("version", None)) != VERSION:
        raise UserError(f"data manifest {path} has version {found}; this GlassGPT reads {VERSION}")
    return record_from_dict(Manifest, fields, path)
