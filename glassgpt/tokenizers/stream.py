"""Text from ids that come one at a time, as a model writes them."""

from __future__ import annotations

import codecs

from glassgpt.tokenizers.base import Tokenizer


class StreamDecoder:
    """What `feed` and `flush` return, joined, is `tokenizer.decode` of all the ids.

    A character may take several ids; its bytes wait here until it is whole, so that no half of one is shown. Bytes
    that cannot become a character are U+FFFD as soon as that is known.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special_names = {id: name for name, id in tokenizer.special_tokens.items()}
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._started = False

    def feed(self, id: int) -> str:
        """The characters that are whole with this id; often one, sometimes none."""
        name = self._special_names.get(id)
        data = self._tokenizer.token_bytes(id) if name is None else name.encode()
        if not self._started:
            data = self._without_added_space(id, data)
        self._started = True
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that was never completed."""
        return self._decoder.decode(b"", final=True)

    def _without_added_space(self, id: int, data: bytes) -> bytes:
        # SentencePiece puts a space before the text, and its decode takes it away.
        added = data.startswith(b" ") and not self._tokenizer.decode([id]).startswith(" ")
        return data[1:] if added else data
