"""The manifest of a dataset: the source of the text, its split and tokenizer, and its shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError
from glassgpt.files import new_file

FORMAT = "glassgpt-data"
VERSION = 1


@dataclass(frozen=True)
class Split:
    """The sizes and shards of one split of the text."""

    characters: int | None  # None: unknown, because only the ids are available
    bytes: int | None  # of the text in UTF-8, for information: bits per byte are counted from the ids themselves
    tokens: int
    shards: tuple[str, ...]  # file names within the folder
    documents: int | None = None  # documents that begin in it; None: a single text, or not counted


@dataclass(frozen=True)
class TokenizerRecord:
    """Identifies a tokenizer; the tokenizer itself is in its own file."""

    name: str
    vocab_size: int
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
    null_documents: int | None = None  # of a corpus in shards: left out, because null stood in place of a text
    path: str | None = None  # of a corpus in shards: the folder, or the only file, that the run used

    def to_dict(self) -> dict[str, Any]:
        """The manifest as a JSON-ready dict."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Manifest:
        """The inverse of `to_dict`. Raises KeyError or TypeError for fields that are missing or of another type."""
        texts = {name: fields[name] for name in ("key", "name", "source", "note")}
        texts |= {"text_sha256": fields["text_sha256"], "path": fields.get("path")}
        for name, value in texts.items():
            if not isinstance(value, str) and not (value is None and name in ("text_sha256", "path")):
                raise TypeError(f"field '{name}' is not text but {value!r}")
        nulls = fields.get("null_documents")
        if nulls is not None and type(nulls) is not int:
            raise TypeError(f"field 'null_documents' is not a number but {nulls!r}")
        if not isinstance(fields["val_fraction"], float):
            raise TypeError(f"field 'val_fraction' is not a fraction but {fields['val_fraction']!r}")
        return cls(
            **texts,
            null_documents=nulls,
            val_fraction=fields["val_fraction"],
            tokenizer=TokenizerRecord(**fields["tokenizer"]),
            train=_split(fields["train"]),
            val=_split(fields["val"]),
        )

    def save(self, path: Path) -> None:
        """Writes the manifest as JSON, atomically."""
        with new_file(path) as file:
            file.write((json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode())


def is_manifest(path: Path) -> bool:
    """Whether `path` begins like a manifest, intact or not. Other programs use the same file names."""
    try:
        with path.open("rb") as file:
            return f'"{FORMAT}"'.encode() in file.read(100)
    except OSError:
        return False


def load_manifest(path: Path) -> Manifest:
    """The manifest in `path`. Raises UserError, naming file and reason, if it is missing, foreign or damaged."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read data manifest {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"data manifest {path} is damaged: {error}") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise UserError(f"{path} is not a data manifest of GlassGPT")
    if fields.get("version") != VERSION:
        raise UserError(f"data manifest {path} has version {fields.get('version')}; this GlassGPT reads {VERSION}")
    try:
        return Manifest.from_dict(fields)
    except KeyError as error:
        raise UserError(f"data manifest {path} is damaged: field {error} is missing") from error
    except TypeError as error:
        raise UserError(f"data manifest {path} is damaged: {error}") from error


def _split(fields: Mapping[str, Any]) -> Split:
    return Split(**{**fields, "shards": tuple(fields["shards"])})
