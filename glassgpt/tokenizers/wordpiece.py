"""WordPiece, the tokenizer of BERT: each word is cut into the longest pieces of a vocabulary, from left to right.

Schuster and Nakajima 2012 (https://doi.org/10.1109/ICASSP.2012.6289079), as in BERT (Devlin et al. 2018,
https://arxiv.org/abs/1810.04805). A piece inside a word is written with a prefix: "playing" becomes "play" "##ing".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glassgpt.errors import UserError
from glassgpt.tokenizers.base import load_kind, save_json
from glassgpt.tokenizers.normalizing import Json, NormalizingTokenizer, Pipeline

LONGEST_WORD = 100  # characters; a longer word is unknown
BERT_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What the library's decoder takes out of a piece, in this order: a space before punctuation and English contractions.
_CLEANUP = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
            (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))  # fmt: skip


def bert_pipeline(
    lowercase: bool = True,
    strip_accents: bool | None = None,
    chinese: bool = True,
    before: tuple[str, ...] = ("[CLS]",),
    after: tuple[str, ...] = ("[SEP]",),
) -> Pipeline:
    """BERT's cleaning and splitting of a text. `strip_accents` None means: as `lowercase` says."""
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": chinese,
        "strip_accents": strip_accents,
        "lowercase": lowercase,
    }
    return Pipeline(normalizer, {"type": "BertPreTokenizer"}, before=before, after=after)


class WordPieceTokenizer(NormalizingTokenizer):
    """`encode` gives the ids of the text alone: `special_tokens["[CLS]"]` and others are for a stage to add.

    A word that the vocabulary cannot make becomes `unknown`, normally "[UNK]", as a whole.
    """

    def __init__(
        self,
        pieces: Mapping[int, str],
        special_tokens: Mapping[str, int],
        pipeline: Pipeline | None = None,
        *,
        unknown: str = "[UNK]",
        prefix: str = "##",
        longest_word: int = LONGEST_WORD,
        cleanup: bool = True,
    ) -> None:
        """`pieces` are the vocabulary. With `cleanup`, `decode` writes no space before punctuation, as in BERT's files.

        Raises UserError if `unknown` is missing, or if ordinary text could become a special token.
        """
        super().__init__("wordpiece", pieces, special_tokens, pipeline or bert_pipeline())
        self.unknown, self.prefix, self.longest_word, self.cleanup = unknown, prefix, longest_word, cleanup
        self._ids = {piece: id for id, piece in pieces.items()}
        if unknown not in self._ids:
            raise UserError(f"the vocabulary lacks {unknown!r}, which stands for unknown words")
        self._unknown_id = self._ids[unknown]
        self._longest_piece = max(map(len, self._ids))
        for special in self.special_tokens:
            if special in self._ids and special in self._split(self._normalize(special), True):
                raise UserError(f"its special token {special!r} is also a word of ordinary text")
        # BERT's steps look no further than a space: a text can be cut before each.
        is_bert = (self.pipeline.pre_tokenizer or {}).get("type") == "BertPreTokenizer"
        self.safe_cut = re.compile("(?=[ \n])") if is_bert else None

    def _encode_word(self, word: str) -> list[int]:
        if len(word) > self.longest_word:
            return [self._unknown_id]
        ids: list[int] = []
        start, prefix = 0, ""
        while start < len(word):
            stop = min(len(word), start + self._longest_piece)
            while (id := self._ids.get(prefix + word[start:stop])) is None:
                stop -= 1
                if stop == start:
                    return [self._unknown_id]
            ids.append(id)
            start, prefix = stop, self.prefix
        return ids

    def _piece_bytes(self, piece: str, first: bool) -> bytes:
        if not first:
            piece = piece.removeprefix(self.prefix) if piece.startswith(self.prefix) else f" {piece}"
        if self.cleanup:
            for old, new in _CLEANUP:
                piece = piece.replace(old, new)
        return piece.encode()

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "wordpiece",
            "unknown": self.unknown,
            "prefix": self.prefix,
            "longest_word": self.longest_word,
            "cleanup": self.cleanup,
            **self.pipeline.to_dict(),
            "special_tokens": self.special_tokens,
            "vocab": self._ids,
        }

    @classmethod
    def from_dict(cls, data: Json) -> WordPieceTokenizer:
        return cls(
            {id: piece for piece, id in data["vocab"].items()},
            dict(data["special_tokens"]),
            Pipeline.from_dict(data),
            unknown=data["unknown"],
            prefix=data["prefix"],
            longest_word=data["longest_word"],
            cleanup=data["cleanup"],
        )

    @classmethod
    def load(cls, path: Path | str) -> WordPieceTokenizer:
        """The tokenizer that `save` wrote. Raises UserError if the file is missing, damaged or of another type."""
        return load_kind("wordpiece", cls.from_dict, path)

    def save(self, path: Path | str) -> None:
        save_json(self.to_dict(), path)
