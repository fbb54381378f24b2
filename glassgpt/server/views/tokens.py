"""Tokens: one text through several tokenizers, and how a word of one is built, merge by merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glassgpt.errors import UserError
from glassgpt.server.shelf import Entry, Shelf
from glassgpt.tokenizers import Tokenizer
from glassgpt.tokenizers.pieces import tokens_of
from glassgpt.tokenizers.ranked import RankedTokenizer

MOST_TOKENS = 2_000  # that are shown for each tokenizer; all are counted
MOST_WORD_BYTES = 100  # of a word whose merges are shown


@dataclass(frozen=True)
class TokensQuestion:
    """What a page asks about a text and tokenizers."""

    text: str
    run: str | None = None  # whose tokenizer is shown too
    names: tuple[str, ...] | None = None  # of the tokenizers; None: all


@dataclass(frozen=True)
class MergesQuestion:
    """What a page asks about one word of a tokenizer."""

    text: str
    name: str
    run: str | None = None


def split_text(shelf: Shelf, question: TokensQuestion) -> dict[str, Any]:
    """The text's tokens in each tokenizer. One that is not at hand says how to get it, one that fails says why.

    Raises UserError for an empty text.
    """
    if not question.text:
        raise UserError("the text is empty: type one character or more")
    size = len(question.text.encode())
    chosen = [entry for entry in shelf.entries(question.run) if question.names is None or entry.name in question.names]
    found = [_described(shelf, entry, question.text) for entry in chosen]
    return {"bytes": size, "letters": len(question.text), "most_tokens": MOST_TOKENS, "tokenizers": found}


def _described(shelf: Shelf, entry: Entry, text: str) -> dict[str, Any]:
    about = {"name": entry.name, "label": entry.label, "available": entry.missing is None, "how": entry.missing}
    if entry.missing is not None:
        return about
    try:
        tokenizer = shelf.open(entry, text)
        ids = tokenizer.encode(text)
    except UserError as error:
        return {**about, "problem": str(error)}
    shown = ids[:MOST_TOKENS]
    return {
        **about,
        "kind": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "count": len(ids),
        "tokens": tokens_of(tokenizer, shown),
        "sizes": sizes_of(tokenizer, shown, text),
        "words": _word_starts(tokenizer, text) if isinstance(tokenizer, RankedTokenizer) else None,
    }


def sizes_of(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> list[int] | None:
    """How many bytes of the text each of its first tokens stands for; None if they do not spell the text.

    SentencePiece puts a space before the text and may change characters.
    """
    pieces = [tokenizer.token_bytes(id) for id in ids]
    data, spelled = text.encode(), b"".join(pieces)
    sizes = [len(piece) for piece in pieces]
    if data.startswith(spelled):
        return sizes
    if sizes and spelled[:1] == b" " and data.startswith(spelled[1:]):
        return [sizes[0] - 1, *sizes[1:]]
    return None


def _word_starts(tokenizer: RankedTokenizer, text: str) -> list[int]:
    """The byte at which each word begins, as far as tokens are shown."""
    starts: list[int] = []
    place = 0
    for word in tokenizer.words(text):
        if len(starts) == MOST_TOKENS:
            break
        starts.append(place)
        place += len(word.encode())
    return starts


def build_word(shelf: Shelf, question: MergesQuestion) -> dict[str, Any]:
    """How a word becomes its tokens: for each step its parts, the rank of each pair, and the pair that is merged.

    Raises UserError if the tokenizer does not merge bytes, or if the word is empty or too long.
    """
    entry = shelf.find(question.name, question.run)
    tokenizer = shelf.open(entry, question.text)
    if not isinstance(tokenizer, RankedTokenizer):
        raise UserError(f"{entry.label} does not merge bytes: choose a word of a byte-pair tokenizer (BPE)")
    size = len(question.text.encode())
    if not 0 < size <= MOST_WORD_BYTES:
        raise UserError(f"this word has {size:,} bytes, and the merges of 1 to {MOST_WORD_BYTES} are shown")
    steps = tokenizer.merge_steps(question.text)
    return {
        "word": question.text,
        "label": entry.label,
        "steps": [
            {"parts": tokens_of(tokenizer, step.ids), "ranks": step.ranks, "place": step.place} for step in steps
        ],
    }
