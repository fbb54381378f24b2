"""Decodes ids one at a time, as a model generates them."""

from __future__ import annotations

import codecs

from glassgpt.tokenizers.base import Tokenizer, plain_id


class StreamDecoder:
    """Incremental decoder: the joined results of `feed` and `flush` equal `tokenizer.decode` of all the ids.

    A character may take several ids. Its bytes are buffered until it is complete, so that no partial character is
    shown. Bytes that cannot become a character are returned as U+FFFD as soon as that is known.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special_ids = frozenset(tokenizer.special_tokens.values())
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._started = False

    def feed(self, id: int) -> str:
        """The characters that this id completes; may be empty."""
        id = plain_id(id)
        data = self._tokenizer.token_bytes(id) if id not in self._special_ids else self._special_bytes(id)
        if not self._started:
            data = self._at_the_start(id, data)
        self._started = True
        return self._decoder.decode(data)

    def flush(self) -> str:
        """The rest of the text at the end: U+FFFD if the last character is incomplete, else empty."""
        return self._decoder.decode(b"", final=True)

    def _special_bytes(self, id: int) -> bytes:
        # WordPiece writes a space before each word, and so before the name of a special token that is not the first.
        alone = self._tokenizer.decode([id])
        return self._tokenizer.decode([id, id])[len(alone) :].encode()

    def _at_the_start(self, id: int, data: bytes) -> bytes:
        # SentencePiece adds a space before the text, and its decode removes it. WordPiece writes none before the first
        # word. A part of a character has no text of its own.
        try:
            data.decode()
        except UnicodeDecodeError:
            return data
        return self._tokenizer.decode([id]).encode()
