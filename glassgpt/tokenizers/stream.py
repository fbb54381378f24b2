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
        self._special_names = {id: name for name, id in tokenizer.special_tokens.items()}
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._started = False

    def feed(self, id: int) -> str:
        """The characters that this id completes; may be empty."""
        id = plain_id(id)
        name = self._special_names.get(id)
        data = self._tokenizer.token_bytes(id) if name is None else name.encode()
        if not self._started:
            data = self._without_added_space(id, data)
        self._started = True
        return self._decoder.decode(data)

    def flush(self) -> str:
        """The rest of the text at the end: U+FFFD if the last character is incomplete, else empty."""
        return self._decoder.decode(b"", final=True)

    def _without_added_space(self, id: int, data: bytes) -> bytes:
        # SentencePiece adds a space before the text, and its decode removes it.
        added = data.startswith(b" ") and not self._tokenizer.decode([id]).startswith(" ")
        return data[1:] if added else data
