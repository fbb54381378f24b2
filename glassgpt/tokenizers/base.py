"""The tokenizer protocol, and what all tokenizers share: splitting at special tokens, and the JSON file."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from glassgpt.errors import UserError
from glassgpt.files import parse_json, read_file, write_text
from glassgpt.ownership import TOKENIZER_FORMAT

FORMAT = TOKENIZER_FORMAT
VERSION = 1
LARGEST_FILE = 1 << 30  # bytes; a tokenizer of a million ids has a few dozen megabytes
END_OF_TEXT = "<|endoftext|>"  # the special token with which every document begins

AllowedSpecial = Literal["all"] | AbstractSet[str]
T = TypeVar("T", bound="Tokenizer")


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. Text is any `str` without lone surrogates, which UTF-8 cannot encode."""

    name: str
    special_tokens: dict[str, int]

    @property
    def safe_cut(self) -> re.Pattern[str] | None:
        """Matches, with length 0, where a text can be cut without changing its ids. None: nowhere."""

    @property
    def bos_token(self) -> str | None:
        """The special token with which every prompt and document begins, or None. `encode` never adds it."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, special tokens included: the rows an embedding table needs."""

    def encode(self, text: str, *, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
        """The ids of `text`. The text of a special token is ordinary text unless `allowed_special` names it.

        Raises UserError for a lone surrogate, and for a name in `allowed_special` that is not a special token.
        """

    def encode_to_numpy(self, text: str) -> np.ndarray:
        """The ids of `text` as ordinary text, (n,) uint32. For large texts: it creates no Python object per id."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, with special tokens as their names. Bytes that are not UTF-8 become U+FFFD.

        Raises UserError for an id outside the vocabulary.
        """

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one id; empty for a special token. Raises UserError like `decode`."""

    def to_dict(self) -> dict[str, Any]:
        """The contents of the tokenizer's file, JSON-ready."""

    def save(self, path: Path) -> None:
        """Write the tokenizer to one JSON file, which `load_tokenizer` reads."""


def split_special(text: str, special_tokens: Iterable[str], allowed: AllowedSpecial) -> Iterator[tuple[str, bool]]:
    """Split `text` at the allowed special tokens; yields (piece, is_special).

    If one special token is a prefix of another, the longer one wins. Raises UserError for an unknown allowed name.
    """
    names = allowed_names(special_tokens, allowed)
    if not names:
        if text:
            yield text, False
        return
    pattern = re.compile("(" + "|".join(re.escape(name) for name in names) + ")")
    for index, piece in enumerate(pattern.split(text)):
        if piece:
            yield piece, index % 2 == 1


def allowed_names(special_tokens: Iterable[str], allowed: AllowedSpecial) -> list[str]:
    """The allowed special tokens, longest first, so that a regex alternation of them prefers the longer one."""
    known = set(special_tokens)
    if allowed == "all":
        names = known
    elif isinstance(allowed, str):
        raise UserError(f"allowed_special is 'all' or a set of special tokens, not the text {allowed!r}")
    else:
        names = set(allowed)
    if missing := sorted(names - known):
        raise UserError(
            f"allowed_special names {missing[0]!r}, which is not a special token of this tokenizer; "
            f"it has: {', '.join(sorted(known)) or 'none'}"
        )
    return sorted(names, key=lambda name: (-len(name), name))


def begin_with_bos(tokenizer: Tokenizer, ids: Iterable[int]) -> list[int]:
    """`ids` with the tokenizer's `bos_token` before them, if it has one and they do not begin with it already."""
    ids = list(ids)
    bos = [] if tokenizer.bos_token is None else [tokenizer.special_tokens[tokenizer.bos_token]]
    return ids if ids[: len(bos)] == bos else bos + ids


def check_special_names(names: Iterable[str]) -> list[str]:
    """The names as a list. Raises UserError if one is empty, repeated or not text."""
    checked: list[str] = []
    for name in names:
        if not isinstance(name, str) or not name:
            raise UserError(f"a special token must be a text of one character or more, not {name!r}")
        if name in checked:
            raise UserError(f"special token {name!r} is given twice")
        to_utf8(name)
        checked.append(name)
    return checked


def to_utf8(text: str) -> bytes:
    """`text` in UTF-8. Raises UserError, with its position, for a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise surrogate_error(text, error.start) from None


def surrogate_error(text: str, position: int) -> UserError:
    """The error for a lone surrogate in a text."""
    return UserError(
        f"the text has a lone surrogate, U+{ord(text[position]):04X}, at position {position}: half a character, which "
        "UTF-8 cannot encode; read the text as UTF-8, or replace the surrogate"
    )


def plain_ids(ids: Iterable[int]) -> list[int]:
    """The ids as Python integers, also from an array or a tensor of one dimension. Raises UserError for others."""
    try:
        values = ids.tolist() if hasattr(ids, "tolist") else ids
        if isinstance(values, bytes | bytearray):
            raise TypeError
        listed = list(values)
        return listed if set(map(type, listed)) <= {int} else list(map(_plain, listed))
    except (TypeError, NotImplementedError):  # torch raises the latter for a tensor without data
        raise UserError(
            f"ids must be integers in one dimension, not {ids!r:.60}: give a list of ids, or one row of a batch"
        ) from None


def plain_id(id: int) -> int:
    """One id as a Python integer, also from a scalar of NumPy or torch. Raises UserError for others."""
    try:
        return _plain(id)
    except (TypeError, NotImplementedError):
        raise UserError(f"an id must be an integer, not {id!r:.60}") from None


def _plain(id: Any) -> int:
    value = id.tolist() if hasattr(id, "tolist") else id
    if isinstance(value, bool):  # Python counts True as 1; as an id it is a mask in the wrong place
        raise TypeError
    return operator.index(value)


def id_error(id: object, vocab_size: int) -> UserError:
    """The error for an id outside the vocabulary."""
    return UserError(f"token id {id} is outside the vocabulary: ids run from 0 to {vocab_size - 1}")


def save_json(data: dict[str, Any], path: Path | str) -> None:
    """Write a tokenizer file atomically. Raises UserError if it cannot be written."""
    write_text(Path(path), json.dumps({"format": FORMAT, "version": VERSION, **data}, indent=1) + "\n")


def read_tokenizer_file(path: Path) -> bytes:
    """The bytes of a tokenizer file. Raises UserError for what is missing, no regular file, or far too large."""
    if not path.exists():
        raise UserError(f"there is no tokenizer file '{path}'")
    if path.is_file() and (size := path.stat().st_size) > LARGEST_FILE:
        raise UserError(f"'{path}' has {size / 1e9:,.1f} GB, so it is not a tokenizer file")
    return read_file(path, "tokenizer file")


def load_json(path: Path | str) -> dict[str, Any]:
    """The contents of a tokenizer file of this format and version. Raises UserError naming the file and the reason."""
    path = Path(path)
    try:
        data = parse_json(read_tokenizer_file(path))
    except ValueError as error:
        raise damaged(path, f"it is not JSON ({error})") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise damaged(path, f'it has no "format": "{FORMAT}"')
    if data.get("version") != VERSION:
        raise UserError(
            f"tokenizer file '{path}' has format version {data.get('version')!r}, but this glassgpt reads version "
            f"{VERSION}"
        )
    return data


def damaged(path: Path | str, reason: str) -> UserError:
    """The error for a file that exists but cannot be used."""
    return UserError(f"'{path}' is not a tokenizer file of glassgpt, or is damaged: {reason}")


def load_kind(kind: str, build: Callable[[dict[str, Any]], T], path: Path | str) -> T:
    """Load a tokenizer whose "type" in the file must be `kind`. Raises UserError like `load_json`."""
    data = load_json(path)
    if data.get("type") != kind:
        raise UserError(f"the tokenizer file '{path}' is of type {data.get('type')!r}, not {kind!r}")
    return from_file(build, data, path)


def from_file(build: Callable[[dict[str, Any]], T], data: dict[str, Any], path: Path | str) -> T:
    """Build a tokenizer from the contents of `path`. Raises UserError, with the file's name, for invalid contents."""
    try:
        return build(data)
    except KeyError as error:
        raise damaged(path, f"the field {error} is missing") from None
    except (TypeError, ValueError, AttributeError, OverflowError, UserError) as error:
        raise damaged(path, str(error)) from None
