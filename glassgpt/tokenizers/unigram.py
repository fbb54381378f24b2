"""The unigram language model, the tokenizer of T5: of all ways to cut a word into pieces, the most probable one.

Kudo 2018, https://arxiv.org/abs/1804.10959. Each piece has a log-probability; the best sum is found by dynamic
programming over the places of a word (Viterbi 1967, https://doi.org/10.1109/TIT.1967.1054010).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError
from glassgpt.tokenizers.base import load_kind, save_json
from glassgpt.tokenizers.decoders import PieceDecoder
from glassgpt.tokenizers.normalizing import Json, NormalizingTokenizer, Pipeline

UNKNOWN_PENALTY = 10.0  # how far below the least probable piece an unknown character is, as in SentencePiece


class UnigramTokenizer(NormalizingTokenizer):
    """`vocab[id]` is a piece with its log-probability; `unknown` is the id of a character that no piece has.

    Neighbouring unknown characters become one id. A special token in `vocab` is matched only where `allowed_special`
    names it, in the normalised text too.
    """

    def __init__(
        self,
        vocab: Sequence[tuple[str, float]],
        special_tokens: Mapping[str, int],
        pipeline: Pipeline,
        *,
        unknown: int | None,
        byte_fallback: bool = False,
        decoder: PieceDecoder | None = None,
    ) -> None:
        """With `byte_fallback`, an unknown text becomes the pieces of its bytes, such as "<0x0A>", if all exist."""
        super().__init__("unigram", {id: piece for id, (piece, _) in enumerate(vocab)}, special_tokens, pipeline)
        self.vocab = [(str(piece), float(score)) for piece, score in vocab]
        self.unknown, self.byte_fallback = unknown, byte_fallback
        self.decoder = decoder or PieceDecoder(byte_fallback, "all")
        if unknown is not None and not 0 <= unknown < len(self.vocab):
            raise UserError(f"the id of unknown characters is {unknown}, which the vocabulary does not have")
        self._ids = {piece: id for id, (piece, _) in enumerate(self.vocab)}
        self._scores = [score for _, score in self.vocab]
        self._unknown_score = min(self._scores, default=0.0) - UNKNOWN_PENALTY
        self._longest = _longest_by_start(self._ids)
        inside = [re.escape(special) for special in self.special_tokens if special in self._ids]
        self._any_special = re.compile("|".join(inside)) if inside else None

    def _cached(self, word: str, allowed: frozenset[int]) -> list[int]:
        if self._any_special is not None and self._any_special.search(word):
            return self._best(word, self._special_ids - allowed)
        return super()._cached(word, allowed)

    def _encode_word(self, word: str) -> list[int]:
        return self._best(word, frozenset())

    def _best(self, word: str, hidden: frozenset[int]) -> list[int]:
        """The ids of the most probable cut, without the pieces `hidden`; of equals, that with the longest last piece.

        `score[place]` is that of the best cut of the text before `place`, whose last piece begins at `start[place]`.
        """
        ids, scores, size = self._ids, self._scores, len(word)
        score: list[float] = [0.0] * (size + 1)
        start: list[int] = [-1] * (size + 1)
        last: list[int | None] = [None] * (size + 1)  # the id of the last piece; None for an unknown character
        for place in range(size):
            before = score[place]
            single = False
            for stop in range(place + 1, min(size, place + self._longest.get(word[place], 0)) + 1):
                id = ids.get(word[place:stop])
                if id is None or id in hidden:
                    continue
                single = single or stop == place + 1
                total = scores[id] + before
                if start[stop] < 0 or total > score[stop]:
                    score[stop], start[stop], last[stop] = total, place, id
            if not single:
                total = self._unknown_score + before
                if start[place + 1] < 0 or total > score[place + 1]:
                    score[place + 1], start[place + 1], last[place + 1] = total, place, None
        return self._ids_of(self._cuts(word, start, last), hidden)

    def _cuts(self, word: str, start: list[int], last: list[int | None]) -> list[str]:
        """The pieces from the first to the last; neighbouring unknown characters are one."""
        cuts: list[str] = []
        stop = len(word)
        unknown = False
        while stop > 0:
            piece = word[start[stop] : stop]
            is_unknown = last[stop] is None or last[stop] == self.unknown
            if unknown and is_unknown:
                cuts[-1] = piece + cuts[-1]
            else:
                cuts.append(piece)
            unknown = is_unknown
            stop = start[stop]
        return cuts[::-1]

    def _ids_of(self, cuts: list[str], hidden: frozenset[int]) -> list[int]:
        found: list[int] = []
        for piece in cuts:
            id = self._ids.get(piece)
            if id is not None and id not in hidden:
                found.append(id)
            elif self.byte_fallback and all(f"<0x{byte:02X}>" in self._ids for byte in piece.encode()):
                found.extend(self._ids[f"<0x{byte:02X}>"] for byte in piece.encode())
            elif self.unknown is None:
                raise UserError(f"the text has {piece!r}, which this tokenizer cannot encode: it has no unknown id")
            else:
                found.append(self.unknown)
        return found

    def _piece_bytes(self, piece: str, first: bool) -> bytes:
        return self.decoder.decode(piece, first)

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "unigram",
            "unknown": self.unknown,
            "byte_fallback": self.byte_fallback,
            "decoder": asdict(self.decoder),
            **self.pipeline.to_dict(),
            "special_tokens": self.special_tokens,
            "vocab": [[piece, score] for piece, score in self.vocab],
        }

    @classmethod
    def from_dict(cls, data: Json) -> UnigramTokenizer:
        return cls(
            [(piece, score) for piece, score in data["vocab"]],
            dict(data["special_tokens"]),
            Pipeline.from_dict(data),
            unknown=data["unknown"],
            byte_fallback=data["byte_fallback"],
            decoder=PieceDecoder(**data["decoder"]),
        )

    @classmethod
    def load(cls, path: Path | str) -> UnigramTokenizer:
        """The tokenizer that `save` wrote. Raises UserError if the file is missing, damaged or of another type."""
        return load_kind("unigram", cls.from_dict, path)

    def save(self, path: Path | str) -> None:
        save_json(self.to_dict(), path)


def _longest_by_start(pieces: Mapping[str, int]) -> dict[str, int]:
    """The length of the longest piece that begins with each character."""
    longest: dict[str, int] = {}
    for piece in pieces:
        if piece:
            longest[piece[0]] = max(longest.get(piece[0], 0), len(piece))
    return longest
