"""What WordPiece, Unigram and BPE over characters share: a text is normalised, split into words, and each looked up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassgpt.errors import UserError
from glassgpt.tokenizers.base import (
    AllowedSpecial,
    allowed_names,
    check_special_names,
    id_error,
    plain_id,
    plain_ids,
    to_utf8,
)
from glassgpt.tokenizers.normalizers import build_normalizer
from glassgpt.tokenizers.splitters import build_splitter
from glassgpt.tokenizers.unicode_classes import BLANKS

Json = dict[str, Any]

CACHED_WORDS = 1 << 16  # then the cache is emptied
LONGEST_CACHED = 100  # characters: longer words seldom come again


@dataclass(frozen=True)
class Pipeline:
    """What is done to a text around the looking up of words, in the layout of tokenizer.json.

    `options` are those of the special tokens that have any: "lstrip" and "rstrip" take the whitespace beside the token,
    and "normalized" finds it in the normalised text. `before` and `after` are the special tokens that the published
    tokenizer writes around each text: `encode` never adds them.
    """

    normalizer: Json | None = None
    pre_tokenizer: Json | None = None
    options: Mapping[str, Sequence[str]] | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def to_dict(self) -> Json:
        return {
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "special_options": {name: list(options) for name, options in (self.options or {}).items()},
            "before": list(self.before),
            "after": list(self.after),
        }

    @classmethod
    def from_dict(cls, data: Json) -> Pipeline:
        return cls(
            data["normalizer"],
            data["pre_tokenizer"],
            data["special_options"],
            tuple(data["before"]),
            tuple(data["after"]),
        )


class NormalizingTokenizer:
    """`pieces[id]` is the text of an id in the vocabulary, special tokens included. Each kind encodes words."""

    bos_token: str | None = None
    safe_cut: re.Pattern[str] | None = None

    def __init__(
        self, name: str, pieces: Mapping[int, str], special_tokens: Mapping[str, int], pipeline: Pipeline
    ) -> None:
        self.name = name
        self.pipeline = pipeline
        self.special_tokens = {special: special_tokens[special] for special in check_special_names(special_tokens)}
        self.pieces = {**pieces, **{id: special for special, id in self.special_tokens.items()}}
        _check_ids(self.pieces, pieces, self.special_tokens)
        self._special_ids = frozenset(self.special_tokens.values())
        self._n_ids = max(self.pieces, default=-1) + 1
        self._normalize = build_normalizer(pipeline.normalizer)
        self._split = build_splitter(pipeline.pre_tokenizer)
        self._cache: dict[str, list[int]] = {}
        self._options = {special: frozenset((pipeline.options or {}).get(special, ())) for special in special_tokens}
        self._normalized = {
            self._normalize(special): special for special, options in self._options.items() if "normalized" in options
        }
        self._check_specials()

    def _check_specials(self) -> None:
        normalized = [special for special, options in self._options.items() if "normalized" in options]
        if "" in self._normalized or len(self._normalized) < len(normalized):
            raise UserError(f"its special tokens, normalised, are empty or equal: {', '.join(normalized)}")
        for special in (*self.pipeline.before, *self.pipeline.after):
            if special not in self.special_tokens:
                raise UserError(f"{special!r}, which is written around each text, is none of its special tokens")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocab_size:,} ids)"

    @property
    def vocab_size(self) -> int:
        return self._n_ids

    def encode(self, text: str, *, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
        """The ids of `text`; see `Tokenizer.encode`. Each part between special tokens is encoded independently."""
        to_utf8(text)
        names = allowed_names(self.special_tokens, allowed_special)
        allowed = frozenset(self.special_tokens[name] for name in names)
        ids: list[int] = []
        for part, special, first in self._parts(text, names):
            if special is not None:
                ids.append(special)
                continue
            for word in self._split(part, first):
                ids.extend(self._cached(word, allowed))
        return ids

    def encode_to_numpy(self, text: str) -> np.ndarray:
        return np.array(self.encode(text), dtype=np.uint32)

    def _parts(self, text: str, names: list[str]) -> Iterator[tuple[str, int | None, bool]]:
        """The normalised parts between special tokens: (part, the id of a special token or None, whether at the start).

        As in the `tokenizers` library, most special tokens are found in the text as it is. Only those that are
        "normalized" are found after the normalisation of the parts between the others.
        """
        plain = {name: name for name in names if "normalized" not in self._options[name]}
        later = {match: name for match, name in self._normalized.items() if name in names}
        at = 0
        for part, special in self._split_at(text, plain):
            if special is not None:
                yield part, special, False
            else:
                inside = 0
                for piece, found in self._split_at(self._normalize(part), later):
                    yield piece, found, at == inside == 0
                    inside += len(piece)
            at += len(part)

    def _split_at(self, text: str, names: Mapping[str, str]) -> Iterator[tuple[str, int | None]]:
        """`text` in parts: special tokens (keys of `names`, the longest first) with their ids, and what is between."""
        start = 0
        if names:
            longest = sorted(names, key=lambda match: (-len(match), match))
            for match in re.finditer("|".join(map(re.escape, longest)), text):
                special = names[match.group()]
                first, last = match.span()
                if "lstrip" in self._options[special]:
                    first = max(start, len(text[:first].rstrip(BLANKS)))
                if "rstrip" in self._options[special]:
                    last = len(text) - len(text[last:].lstrip(BLANKS))
                if start < first:
                    yield text[start:first], None
                yield text[first:last], self.special_tokens[special]
                start = last
        if start < len(text):
            yield text[start:], None

    def _cached(self, word: str, allowed: frozenset[int]) -> list[int]:
        ids = self._cache.get(word)
        if ids is None:
            ids = self._encode_word(word)
            if len(word) <= LONGEST_CACHED:
                if len(self._cache) >= CACHED_WORDS:
                    self._cache.clear()
                self._cache[word] = ids
        return ids

    def _encode_word(self, word: str) -> list[int]:
        """The ids of one word of the normalised text."""
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; see `Tokenizer.decode`. It is normalised text, which may not be the text of `encode`."""
        plain = plain_ids(ids)
        data = [self._shown(id, first=place == 0) for place, id in enumerate(plain)]
        return b"".join(data).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        id = plain_id(id)
        return b"" if id in self._special_ids else self._shown(id, first=False)

    def _shown(self, id: int, *, first: bool) -> bytes:
        piece = self.pieces.get(id)
        if piece is not None:
            return self._piece_bytes(piece, first)
        if 0 <= id < self.vocab_size:  # published vocabularies have unused ids
            return b""
        raise id_error(id, self.vocab_size)

    def _piece_bytes(self, piece: str, first: bool) -> bytes:
        """The bytes that a piece adds to a decoded text, at its start or after other pieces."""
        raise NotImplementedError


def _check_ids(pieces: Mapping[int, str], ordinary: Mapping[int, str], special_tokens: Mapping[str, int]) -> None:
    """Raises UserError unless each id stands for one text, and a special token's text for its id."""
    for id, piece in pieces.items():
        if not isinstance(id, int) or isinstance(id, bool) or id < 0 or not isinstance(piece, str):
            raise UserError(f"a vocabulary maps ids, 0 or more, to texts, not {id!r} to {piece!r}")
    if len(set(special_tokens.values())) < len(special_tokens):
        raise UserError("two special tokens have the same id")
    for special, id in special_tokens.items():
        if ordinary.get(id, special) != special:
            raise UserError(f"special token {special!r} cannot have id {id}, which stands for {ordinary[id]!r}")
    if len(set(pieces.values())) < len(pieces):
        raise UserError("two ids stand for the same text")
