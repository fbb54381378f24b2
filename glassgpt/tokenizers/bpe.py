"""Byte-level byte-pair encoding (BPE) that is trained here: frequent pairs of neighbouring bytes become tokens."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken

from glassgpt.errors import UserError, shown
from glassgpt.tokenizers.base import END_OF_TEXT, check_special_names, load_kind, save_json
from glassgpt.tokenizers.merges import learn_merges
from glassgpt.tokenizers.normalizers import unicode_form
from glassgpt.tokenizers.patterns import SAFE_CUTS_BESIDE_TOKENS, split_pattern
from glassgpt.tokenizers.printable import BYTE_ORDER, from_printable, to_printable
from glassgpt.tokenizers.ranked import RankedTokenizer
from glassgpt.tokenizers.words import count_words

Merge = tuple[bytes, bytes]
_BYTE_IDS = bytes(BYTE_ORDER.index(bytes([byte])) for byte in range(256))  # the id of each byte
MOST_IDS = 1 << 28  # more than any text has pairs worth merging


class BPETokenizer(RankedTokenizer):
    """`vocab[id]` is the bytes of an id, including special tokens; `merges` are the merged pairs, in order.

    A tokenizer trained here numbers the 256 bytes like GPT-2, then its merges, then its special tokens.
    """

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        merges: Sequence[Merge],
        special_tokens: Iterable[str] | Mapping[str, int] | None = None,
        pattern: str = "gpt2",
        *,
        bos_token: str | None = None,
        ignore_merges: bool = False,
        found_in_text: Iterable[str] = (),
        normal_form: str | None = None,
    ) -> None:
        """A tokenizer from its parts, for example GPT-2's published files.

        Special tokens in `vocab` keep their ids; others are appended to it. An entry that is not a byte, merge or
        special token can be decoded, but encoding never produces it, except with `ignore_merges`: then a word that is
        such an entry becomes its id. Several merges may make the same token. `bos_token` is one of the special tokens,
        see `Tokenizer`. Those in `found_in_text` stand for their text wherever it is, such as Qwen's "<think>".
        `normal_form` is "NFC" for a text in which a letter and its accent become one character, where there is one.
        Raises UserError if a byte is missing, if a merge joins or makes a token that `vocab` lacks, if the ids do not
        follow the order of the merges, or if `bos_token` or a name in `found_in_text` is not a special token.
        """
        self.pattern = pattern
        self.merges = [(bytes(first), bytes(second)) for first, second in merges]
        self.vocab = dict(vocab)
        ids = _ordinary_ids(self.vocab, self.merges)
        specials = _place_special_tokens(self.vocab, ids, special_tokens or ())
        encoding = tiktoken.Encoding(
            "bpe",
            pat_str=split_pattern(pattern),
            mergeable_ranks=_ranks(ids, self.merges),
            special_tokens=specials or {END_OF_TEXT: max(self.vocab) + 1},
        )
        super().__init__("bpe", encoding, self.vocab, specials)
        for option, name in (("bos_token", bos_token), *(("found_in_text", name) for name in found_in_text)):
            if name is not None and name not in specials:
                raise UserError(f"{option} is {name!r}, which is not a special token: {', '.join(specials) or 'none'}")
        if normal_form not in (None, "NFC"):
            raise UserError(f"normal_form is {normal_form!r}, but must be 'NFC' or None")
        self.bos_token = bos_token
        self.normal_form = normal_form
        self.found_in_text = frozenset(found_in_text)
        if self.found_in_text:
            self._special_ids -= {specials[name] for name in self.found_in_text}  # ordinary text, with its bytes
            whole = not any(re.search(r"\s", name) for name in self.found_in_text)
            self.safe_cut = SAFE_CUTS_BESIDE_TOKENS[split_pattern(pattern)] if whole else None
        self.ignore_merges = ignore_merges
        self._whole_words = self._entries_without_merges() if ignore_merges else {}

    def _entries_without_merges(self) -> dict[str, int]:
        """The words that are entries of the vocabulary, although the merges do not make them, with their ids."""
        made = self._encoding._mergeable_ranks
        words: dict[str, int] = {}
        specials = set(self.special_tokens.values())
        for id, token in self.vocab.items():
            if id not in specials and token not in made:
                with contextlib.suppress(UnicodeDecodeError):  # part of a character: never a word
                    words[token.decode("utf-8")] = id
        return words

    def _normalized(self, text: str) -> str:
        # No safe cut is between characters that NFC joins or reorders: one of its sides is whitespace or a mark.
        return text if self.normal_form is None else unicode_form(self.normal_form, text)

    def words(self, text: str) -> list[str]:
        return super().words(self._normalized(text))

    def _encode_ordinary(self, text: str) -> list[int]:
        if not self._whole_words:
            return super()._encode_ordinary(self._normalized(text))
        return [id for word in self.words(text) for id in self._encode_word(word)]

    def _encode_word(self, word: str) -> list[int]:
        # tiktoken merges any two neighbours that are a token together, so it must not know the whole words.
        id = self._whole_words.get(word)
        return super()._encode_word(word) if id is None else [id]

    def _encode_slice(self, text: str) -> np.ndarray:
        if self._whole_words or self.found_in_text:
            return np.array(self.encode(text), np.uint32)
        return super()._encode_slice(self._normalized(text))

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        vocab_size: int,
        special_tokens: Iterable[str] = (),
        pattern: str = "gpt2",
        processes: int | None = None,
    ) -> BPETokenizer:
        """Learn merges from a text, or from several texts that are split independently.

        `vocab_size` counts the 256 bytes, the merges and the special tokens. It is not reached if the text has too
        few pairs. Special tokens separate the text and are not learned from. `processes` is passed to `count_words`.
        """
        names = check_special_names(special_tokens)
        if vocab_size > MOST_IDS:
            raise UserError(f"vocab_size is {shown(vocab_size)}, but must be {MOST_IDS:,} or less")
        n_merges = vocab_size - len(BYTE_ORDER) - len(names)
        if n_merges < 0:
            raise UserError(
                f"vocab_size is {vocab_size}, but must be {vocab_size - n_merges} or more: 256 bytes and {len(names)} "
                "special tokens"
            )
        counts = count_words(text, pattern, names, processes)
        words = {word.encode("utf-8").translate(_BYTE_IDS): count for word, count in counts.items()}
        vocab = dict(enumerate(BYTE_ORDER))
        merges: list[Merge] = []
        for first, second in islice(learn_merges(words, first_id=len(vocab)), n_merges):
            merges.append((vocab[first], vocab[second]))
            vocab[len(vocab)] = vocab[first] + vocab[second]
        return cls(vocab, merges, names, pattern)

    def to_dict(self) -> dict[str, Any]:
        specials = set(self.special_tokens.values())
        return {
            "type": "bpe",
            "pattern": self.pattern,
            **({"bos_token": self.bos_token} if self.bos_token is not None else {}),
            **({"ignore_merges": True} if self.ignore_merges else {}),
            **({"found_in_text": sorted(self.found_in_text)} if self.found_in_text else {}),
            **({"normal_form": self.normal_form} if self.normal_form is not None else {}),
            "special_tokens": self.special_tokens,
            "vocab": {to_printable(token): id for id, token in self.vocab.items() if id not in specials},
            "merges": [f"{to_printable(first)} {to_printable(second)}" for first, second in self.merges],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BPETokenizer:
        vocab = {id: from_printable(token) for token, id in data["vocab"].items()}
        merges = []
        for line in data["merges"]:
            first, second = line.split(" ")
            merges.append((from_printable(first), from_printable(second)))
        return cls(
            vocab,
            merges,
            dict(data["special_tokens"]),
            data["pattern"],
            bos_token=data.get("bos_token"),
            ignore_merges=data.get("ignore_merges", False),
            found_in_text=data.get("found_in_text", ()),
            normal_form=data.get("normal_form"),
        )

    @classmethod
    def load(cls, path: Path | str) -> BPETokenizer:
        """The tokenizer that `save` wrote. Raises UserError if the file is missing, damaged or of another type."""
        return load_kind("bpe", cls.from_dict, path)

    def save(self, path: Path | str) -> None:
        save_json(self.to_dict(), path)


def _ordinary_ids(vocab: Mapping[int, bytes], merges: Sequence[Merge]) -> dict[bytes, int]:
    """The ids of the bytes and of all tokens in the merges. Raises UserError if `vocab` lacks one."""
    ids: dict[bytes, int] = {}
    for id, token in vocab.items():
        if not isinstance(id, int) or id < 0 or not isinstance(token, bytes):
            raise UserError(f"a vocabulary maps ids, 0 or more, to bytes, not {id!r} to {token!r}")
        # In some vocabularies, a special token has the same bytes as an ordinary token. The ordinary one comes first.
        ids[token] = min(id, ids.get(token, id))
    missing = [byte for byte in BYTE_ORDER if byte not in ids]
    if missing:
        raise UserError(f"the vocabulary lacks the byte {missing[0]!r}: it needs all 256 to encode any text")
    ordinary = {byte: ids[byte] for byte in BYTE_ORDER}
    for number, (first, second) in enumerate(merges):
        for verb, token in (("joins", first), ("joins", second), ("makes", first + second)):
            if token not in ids:
                raise UserError(
                    f"merge {number}, of {first!r} and {second!r}, {verb} {token!r}, which is not in the vocabulary"
                )
            ordinary[token] = ids[token]
    return ordinary


def _ranks(ids: Mapping[bytes, int], merges: Sequence[Merge]) -> dict[bytes, int]:
    """The ids of the bytes and of the tokens that the merges make. Raises UserError if they do not follow the merges.

    Merging within the bytes that become one token does not depend on what is around them. So each token is always made
    like from its bytes alone, and by the same last merge. Other merges of the same token are never applied, and a token
    that its own bytes do not become is never made. With the tokens here and no others, two neighbours in tiktoken whose
    joined bytes are a token are always the pair of its one merge, and tiktoken gives what applying the merges gives.
    """
    order = {pair: number for number, pair in enumerate(merges)}
    last: dict[int, bytes] = {}  # by the number of the merge: the token that it makes
    for token in {first + second for first, second in merges}:
        first, *second = apply_merges(token, order, fewest=2)
        if len(second) == 1 and (first, *second) in order:
            last[order[first, second[0]]] = token
    ranks = {byte: ids[byte] for byte in BYTE_ORDER}
    previous = -1
    for number, token in sorted(last.items()):
        if ids[token] <= previous:
            raise UserError(
                f"merge {number}, which makes {token!r}, has id {ids[token]}, but the merge before it has {previous}: "
                "ids must follow the order of the merges"
            )
        previous = ranks[token] = ids[token]
    return ranks


def _place_special_tokens(
    vocab: dict[int, bytes], ids: Mapping[bytes, int], special_tokens: Iterable[str] | Mapping[str, int]
) -> dict[str, int]:
    """The id of every special token. Appends those that `vocab` lacks."""
    names = check_special_names(special_tokens)
    if isinstance(special_tokens, Mapping):
        wanted = dict(special_tokens)
    else:
        free = {token: id for id, token in vocab.items() if ids.get(token) != id}
        wanted = {name: free[name.encode()] for name in names if name.encode() in free}
    placed = {}
    for name in names:
        id = wanted.get(name, max(vocab) + 1)
        if not isinstance(id, int) or id < 0:
            raise UserError(f"the id of special token {name!r} is {id!r}, but must be an integer, 0 or more")
        if vocab.setdefault(id, name.encode()) != name.encode() or ids.get(name.encode()) == id:
            raise UserError(f"special token {name!r} cannot have id {id}, which stands for {vocab[id]!r}")
        placed[name] = id
    return placed


def apply_merges(word: bytes, order: Mapping[Merge, int], fewest: int = 1) -> list[bytes]:
    """The tokens of one word, by the definition of BPE: apply the earliest merge among its pairs until none is left.

    Of equal merges, the left one comes first. Merging also ends when `fewest` tokens are left.
    """
    parts = [word[index : index + 1] for index in range(len(word))]
    none = len(order)
    numbers = [order.get(pair, none) for pair in pairwise(parts)]  # of the merge of each pair
    while len(parts) > fewest and (number := min(numbers, default=none)) < none:
        place = numbers.index(number)
        parts[place] += parts.pop(place + 1)
        del numbers[place]
        if place > 0:
            numbers[place - 1] = order.get((parts[place - 1], parts[place]), none)
        if place < len(numbers):
            numbers[place] = order.get((parts[place], parts[place + 1]), none)
    return parts
