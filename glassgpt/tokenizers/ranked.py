"""Encoding and decoding with tiktoken, shared by the BPE tokenizers trained here and OpenAI's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import regex
import tiktoken

from glassgpt.tokenizers.base import (
    AllowedSpecial,
    allowed_names,
    id_error,
    plain_id,
    plain_ids,
    split_special,
    to_utf8,
)
from glassgpt.tokenizers.patterns import safe_cut, safe_slices, safe_stream, split_long_blanks
from glassgpt.tokenizers.threads import available_cores

STREAM_SLICE = 1 << 14  # characters that `encode_iterable` encodes at a time
CORPUS_SLICE = 1 << 20  # characters that a thread of `encode_to_numpy` encodes at a time


@dataclass(frozen=True)
class MergeStep:
    """A word while its bytes are merged.

    `ranks[i]` is the id of the token that parts i and i + 1 make together, or None if they make none. The lowest one is
    merged next, at `place`; it is None after the last merge.
    """

    ids: list[int]
    ranks: list[int | None]
    place: int | None


class RankedTokenizer:
    """A byte-level BPE whose ids are ranks: tiktoken repeatedly merges the pair of a word that gives the lowest id.

    `encoding` makes only ordinary tokens. This class finds the special tokens: if one is a prefix of another, tiktoken
    may choose either. `encoding` still needs one special token, because with none, tiktoken's search for them stops at
    every character. `tokens` maps every id to its bytes; those of a special token are its name.
    """

    bos_token: str | None = None
    found_in_text: frozenset[str] = frozenset()  # the special tokens that `encode` finds in any text

    def __init__(
        self, name: str, encoding: tiktoken.Encoding, tokens: Mapping[int, bytes], special_tokens: Mapping[str, int]
    ) -> None:
        self.name = name
        self.special_tokens = dict(special_tokens)
        self.safe_cut = safe_cut(encoding._pat_str)
        self._encoding = encoding
        self._tokens = tokens
        self._special_ids = frozenset(self.special_tokens.values())
        self._n_ids = max(tokens) + 1

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocab_size:,} ids)"

    @property
    def vocab_size(self) -> int:
        return self._n_ids

    def encode(self, text: str, *, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
        """The ids of `text`; see `Tokenizer.encode`."""
        to_utf8(text)
        names = self.found_in_text.union(allowed_names(self.special_tokens, allowed_special))
        if not names:
            return self._encode_ordinary(text)
        ids: list[int] = []
        for piece, special in split_special(text, self.special_tokens, names):
            if special:
                ids.append(self.special_tokens[piece])
            else:
                ids.extend(self._encode_ordinary(piece))
        return ids

    def encode_iterable(self, texts: Iterable[str], *, allowed_special: AllowedSpecial = frozenset()) -> Iterator[int]:
        """The ids of the joined `texts` (for example the lines of a file), in constant memory.

        Only a single word is held whole, however long it is, and so is a text with an unknown split pattern.
        """
        names = allowed_names(self.special_tokens, allowed_special)
        for part in safe_stream(texts, STREAM_SLICE, self.safe_cut, names):
            yield from self.encode(part, allowed_special=set(names))

    def encode_to_numpy(self, text: str) -> np.ndarray:
        """The ids of `text` as ordinary text, (n,) uint32. Threads encode slices in parallel."""
        to_utf8(text)
        if len(text) <= CORPUS_SLICE:
            return self._encode_slice(text)
        with ThreadPoolExecutor(available_cores()) as pool:
            return np.concatenate(list(pool.map(self._encode_slice, safe_slices(text, CORPUS_SLICE, self.safe_cut))))

    def words(self, text: str) -> list[str]:
        """The words that `text` is split into before merging. No token crosses a word."""
        to_utf8(text)
        return regex.findall(self._encoding._pat_str, text)

    def merge_steps(self, word: str) -> list[MergeStep]:
        """How one word of `words` becomes its tokens: its bytes first, and then a step for each merge.

        If the word is a token that its merges do not make, it is looked up whole: then that is the last step.
        """
        ranks = self._encoding._mergeable_ranks
        data = to_utf8(word)
        parts = [data[index : index + 1] for index in range(len(data))]
        steps = []
        while True:
            joined = [ranks.get(first + second) for first, second in pairwise(parts)]
            lowest = min((rank for rank in joined if rank is not None), default=None)
            place = None if lowest is None else joined.index(lowest)
            steps.append(MergeStep([ranks[part] for part in parts], joined, place))
            if place is None:
                break
            parts[place] += parts.pop(place + 1)
        ids = self._encode_word(word)
        return steps if ids == steps[-1].ids else [*steps, MergeStep(ids, [None] * (len(ids) - 1), None)]

    def _encode_word(self, word: str) -> list[int]:
        return self._encoding._encode_single_piece(word)

    def _encode_ordinary(self, text: str) -> list[int]:
        parts = [self._encoding.encode_ordinary(part) for part in split_long_blanks(text)]
        return parts[0] if len(parts) == 1 else [id for part in parts for id in part]

    def _encode_slice(self, text: str) -> np.ndarray:
        # With nothing disallowed, tiktoken encodes special tokens as ordinary text. `encode_to_numpy` creates no Python
        # integers, so it does not block other threads.
        parts = [self._encoding.encode_to_numpy(part, disallowed_special=()) for part in split_long_blanks(text)]
        return np.concatenate(parts)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; see `Tokenizer.decode`."""
        return b"".join(map(self._bytes, plain_ids(ids))).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        id = plain_id(id)
        return b"" if id in self._special_ids else self._bytes(id)

    def _bytes(self, id: int) -> bytes:
        try:
            return self._tokens[id]
        except KeyError:
            if 0 <= id < self.vocab_size:  # published vocabularies have unused ids
                return b""
            raise id_error(id, self.vocab_size) from None
