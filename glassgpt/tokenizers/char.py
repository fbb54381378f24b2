"""The character tokenizer: one id per character."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from glassgpt.errors import UserError
from glassgpt.tokenizers.base import (
    AllowedSpecial,
    check_special_names,
    id_error,
    load_kind,
    plain_id,
    plain_ids,
    save_json,
    split_special,
    surrogate_error,
)
from glassgpt.tokenizers.patterns import ANYWHERE

CHUNK = 1 << 20  # characters processed at once: 4 MB as code points, for a text of any length
UNICODE = 0x110000  # one more than the largest code point
UNKNOWN = np.iinfo(np.uint32).max


class CharTokenizer:
    """`alphabet[id]` is the character of `id`; special tokens follow the alphabet.

    It uses a table indexed by code points, so that even a gigabyte of text needs no Python loop over characters.
    """

    name = "char"
    safe_cut = ANYWHERE
    bos_token = None

    def __init__(self, alphabet: Iterable[str], special_tokens: Iterable[str] = ()) -> None:
        self.alphabet = list(alphabet)
        if not self.alphabet:
            raise UserError("a char tokenizer needs an alphabet of one character or more; the text is empty")
        if any(not isinstance(character, str) or len(character) != 1 for character in self.alphabet):
            raise UserError("the alphabet of a char tokenizer must be a list of single characters")
        if len(set(self.alphabet)) < len(self.alphabet):
            raise UserError("the alphabet of a char tokenizer contains a character twice")
        names = check_special_names(special_tokens)
        self.special_tokens = {name: len(self.alphabet) + index for index, name in enumerate(names)}
        self._codes = _code_points("".join(self.alphabet))
        self._ids = np.full(UNICODE, UNKNOWN, dtype=np.uint32)
        self._ids[self._codes] = np.arange(len(self.alphabet), dtype=np.uint32)
        self._texts = dict(enumerate([*self.alphabet, *names]))

    @classmethod
    def train(cls, text: str, special_tokens: Iterable[str] = ()) -> CharTokenizer:
        """The tokenizer whose alphabet is the sorted set of the characters of `text`."""
        seen = np.zeros(UNICODE, dtype=bool)
        for codes in _chunks(text):
            seen[codes] = True
        return cls(map(chr, np.flatnonzero(seen)), special_tokens)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocab_size:,} ids)"

    @property
    def vocab_size(self) -> int:
        return len(self.alphabet) + len(self.special_tokens)

    def encode(self, text: str, *, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
        """The ids of `text`; see `Tokenizer.encode`. Raises UserError for a character outside the alphabet."""
        ids: list[int] = []
        start = 0
        for piece, special in split_special(text, self.special_tokens, allowed_special):
            if special:
                ids.append(self.special_tokens[piece])
            else:
                ids.extend(self._encode_ordinary(piece, start).tolist())
            start += len(piece)
        return ids

    def encode_to_numpy(self, text: str) -> np.ndarray:
        """The ids of `text` as ordinary text, (len(text),) uint32."""
        return self._encode_ordinary(text, 0)

    def _encode_ordinary(self, text: str, offset: int) -> np.ndarray:
        ids = np.empty(len(text), dtype=np.uint32)
        start = 0
        for codes in _chunks(text):
            chunk = ids[start : start + len(codes)]
            np.take(self._ids, codes, out=chunk)
            if chunk.max() == UNKNOWN:
                position = start + int(np.argmax(chunk))
                raise self._unknown(text[position], offset + position)
            start += len(codes)
        return ids

    def _unknown(self, character: str, position: int) -> UserError:
        return UserError(
            f"character {character!r} (U+{ord(character):04X}) at position {position} is not in the alphabet of this "
            f"char tokenizer, which has {len(self.alphabet)} characters; remove it, or train a tokenizer on text that "
            "contains it"
        )

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(map(self._text, plain_ids(ids)))

    def token_bytes(self, id: int) -> bytes:
        text = self._text(id := plain_id(id))
        return b"" if id >= len(self.alphabet) else text.encode("utf-8")

    def _text(self, id: int) -> str:
        try:
            return self._texts[id]
        except KeyError:
            raise id_error(id, self.vocab_size) from None

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "char",
            "alphabet": self.alphabet,
            "special_tokens": list(self.special_tokens),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CharTokenizer:
        return cls(data["alphabet"], data["special_tokens"])

    @classmethod
    def load(cls, path: Path | str) -> CharTokenizer:
        """The tokenizer that `save` wrote. Raises UserError if the file is missing, damaged or of another type."""
        return load_kind("char", cls.from_dict, path)

    def save(self, path: Path | str) -> None:
        save_json(self.to_dict(), path)


def _chunks(text: str) -> Iterator[np.ndarray]:
    """The code points of `text` in chunks, each (chunk length,) uint32."""
    for start in range(0, len(text), CHUNK):
        yield _code_points(text[start : start + CHUNK], text, start)


def _code_points(part: str, whole: str = "", start: int = 0) -> np.ndarray:
    """(len(part),) uint32. `part` begins at `start` of `whole`, where a lone surrogate is reported."""
    try:
        return np.frombuffer(part.encode("utf-32-le"), dtype="<u4")
    except UnicodeEncodeError as error:
        raise surrogate_error(whole or part, start + error.start) from None
