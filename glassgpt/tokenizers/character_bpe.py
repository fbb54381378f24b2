"""BPE that merges characters, as in Llama 1 and 2: a character outside the vocabulary becomes its bytes, or unknown.

Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; byte fallback as in SentencePiece
(https://arxiv.org/abs/1808.06226). Spaces are written "▁", and usually nothing else splits a text into words.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError
from glassgpt.tokenizers.base import load_kind, save_json
from glassgpt.tokenizers.decoders import PieceDecoder
from glassgpt.tokenizers.normalizing import Json, NormalizingTokenizer, Pipeline
from glassgpt.tokenizers.splitters import SPACE

_FROM_SPACES = re.compile(f"{SPACE}+[^{SPACE}]*|[^{SPACE}]+")
_ENTERS_SPACE = re.compile(f"[^{SPACE}]{SPACE}")


class CharacterBPETokenizer(NormalizingTokenizer):
    """`pieces` are the vocabulary, `merges` the merged pairs, in order.

    With `byte_fallback`, a character that is no piece becomes the pieces of its bytes ("<0x0A>"). Without, it becomes
    `unknown`, of which several in a row are one with `fuse_unknown`; if `unknown` is None, it vanishes.
    """

    def __init__(
        self,
        pieces: Mapping[int, str],
        merges: Sequence[tuple[str, str]],
        special_tokens: Mapping[str, int],
        pipeline: Pipeline,
        *,
        unknown: str | None = None,
        fuse_unknown: bool = False,
        byte_fallback: bool = False,
        ignore_merges: bool = False,
        decoder: PieceDecoder | None = None,
    ) -> None:
        """With `ignore_merges`, a word that is a piece becomes its id. Raises UserError for parts that do not fit."""
        super().__init__("character_bpe", pieces, special_tokens, pipeline)
        self.merges = [(str(first), str(second)) for first, second in merges]
        self.unknown, self.fuse_unknown, self.byte_fallback = unknown, fuse_unknown, byte_fallback
        self.ignore_merges = ignore_merges
        self.decoder = decoder or PieceDecoder(byte_fallback)
        self._ids = {piece: id for id, piece in pieces.items()}
        self._unknown_id = None if unknown is None else self._ids.get(unknown)
        if unknown is not None and self._unknown_id is None:
            raise UserError(f"the vocabulary lacks {unknown!r}, which stands for unknown characters")
        if byte_fallback and (missing := [byte for byte in range(256) if f"<0x{byte:02X}>" not in self._ids]):
            raise UserError(f"the vocabulary lacks the byte <0x{missing[0]:02X}>: byte fallback needs all 256")
        self._bytes = [self._ids[f"<0x{byte:02X}>"] for byte in range(256)] if byte_fallback else []
        self._merged = self._numbered()
        made = {first + second for first, second in self.merges}
        for special in self.special_tokens:
            if special in self._ids and (len(special) == 1 or special in made):
                raise UserError(f"its special token {special!r} is also made of ordinary text")
        # No merge makes a piece with a space after another character, so none crosses the start of a run of spaces.
        words_are_safe = SPACE in self._ids and not ignore_merges and not any(map(_ENTERS_SPACE.search, made))
        self._words = _FROM_SPACES if words_are_safe else None
        self.bos_token = pipeline.before[0] if len(pipeline.before) == 1 else None

    def _numbered(self) -> dict[tuple[int, int], tuple[int, int]]:
        """By the ids of a pair: the number of its merge, and the id that it makes."""
        numbered: dict[tuple[int, int], tuple[int, int]] = {}
        for number, (first, second) in enumerate(self.merges):
            for verb, piece in (("joins", first), ("joins", second), ("makes", first + second)):
                if piece not in self._ids:
                    raise UserError(f"merge {number} {verb} {piece!r}, which is not in the vocabulary")
            numbered[self._ids[first], self._ids[second]] = number, self._ids[first + second]
        return numbered

    def _cached(self, word: str, allowed: frozenset[int]) -> list[int]:
        if self._words is None:
            return super()._cached(word, allowed)
        parts = self._words.findall(word)
        return [id for part in parts for id in super(CharacterBPETokenizer, self)._cached(part, allowed)]

    def _encode_word(self, word: str) -> list[int]:
        if self.ignore_merges and (id := self._ids.get(word)) is not None and id not in self._special_ids:
            return [id]
        return merge_ids(self._characters(word), self._merged)

    def _characters(self, word: str) -> list[int]:
        """The ids of the characters of a word, before merging."""
        ids: list[int] = []
        unknown = False  # whether the character before was unknown
        for character in word:
            id = self._ids.get(character)
            if id is not None:
                ids.append(id)
            elif self.byte_fallback:
                ids.extend(self._bytes[byte] for byte in character.encode())
            elif self._unknown_id is not None and not (unknown and self.fuse_unknown):
                ids.append(self._unknown_id)
            unknown = id is None
        return ids

    def _piece_bytes(self, piece: str, first: bool) -> bytes:
        return self.decoder.decode(piece, first)

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "character_bpe",
            "unknown": self.unknown,
            "fuse_unknown": self.fuse_unknown,
            "byte_fallback": self.byte_fallback,
            "ignore_merges": self.ignore_merges,
            "decoder": asdict(self.decoder),
            **self.pipeline.to_dict(),
            "special_tokens": self.special_tokens,
            "vocab": self._ids,
            "merges": [[first, second] for first, second in self.merges],
        }

    @classmethod
    def from_dict(cls, data: Json) -> CharacterBPETokenizer:
        return cls(
            {id: piece for piece, id in data["vocab"].items()},
            [(first, second) for first, second in data["merges"]],
            dict(data["special_tokens"]),
            Pipeline.from_dict(data),
            unknown=data["unknown"],
            fuse_unknown=data["fuse_unknown"],
            byte_fallback=data["byte_fallback"],
            ignore_merges=data["ignore_merges"],
            decoder=PieceDecoder(**data["decoder"]),
        )

    @classmethod
    def load(cls, path: Path | str) -> CharacterBPETokenizer:
        """The tokenizer that `save` wrote. Raises UserError if the file is missing, damaged or of another type."""
        return load_kind("character_bpe", cls.from_dict, path)

    def save(self, path: Path | str) -> None:
        save_json(self.to_dict(), path)


def merge_ids(ids: list[int], merges: Mapping[tuple[int, int], tuple[int, int]]) -> list[int]:
    """The ids after all merges, by the definition of BPE: the earliest merge among the pairs first, from the left.

    A queue holds the pairs that a merge knows, so that a text without words takes n log n steps. A place that was
    merged into its left neighbour has the id -1.
    """
    ids = list(ids)
    left = list(range(-1, len(ids) - 1))
    right = list(range(1, len(ids) + 1))
    queue = [(*merges[pair], place, pair) for place, pair in enumerate(pairwise(ids)) if pair in merges]
    heapq.heapify(queue)  # by number; merges of one number make one id, so then by place

    def add(place: int, other: int) -> None:
        if place >= 0 and other < len(ids) and (merge := merges.get((ids[place], ids[other]))):
            heapq.heappush(queue, (*merge, place, (ids[place], ids[other])))

    while queue:
        _, new, place, pair = heapq.heappop(queue)
        other = right[place]
        if other >= len(ids) or (ids[place], ids[other]) != pair:
            continue  # another merge took one of the two
        ids[place], ids[other] = new, -1
        right[place] = right[other]
        if right[place] < len(ids):
            left[right[place]] = place
        add(left[place], place)
        add(place, right[place])
    return [id for id in ids if id >= 0]
