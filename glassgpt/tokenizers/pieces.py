"""Ids as the pieces of text that they stand for, one by one, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glassgpt.tokenizers.base import Tokenizer


def tokens_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Each token with its id, its text, and its bytes where they are no whole characters.

    A model may have more ids than its tokenizer. Such an id has an empty text.
    """
    found: list[dict[str, Any]] = []
    names = {id: name for name, id in tokenizer.special_tokens.items()}
    for id in ids:
        if id in names:
            found.append({"id": id, "text": names[id], "special": True})
            continue
        data = tokenizer.token_bytes(id) if id < tokenizer.vocab_size else b""
        try:
            found.append({"id": id, "text": data.decode()})
        except UnicodeDecodeError:
            found.append({"id": id, "text": data.decode(errors="replace"), "bytes": data.hex(" ")})
    return found
