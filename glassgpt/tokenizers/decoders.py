"""How the pieces of SentencePiece-like vocabularies become text again."""

from __future__ import annotations

import re
from dataclasses import dataclass

from glassgpt.tokenizers.splitters import SPACE

BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class PieceDecoder:
    """`byte_pieces`: those such as "<0x0A>" stand for one byte. `added_space`: what is taken from the start of a text.

    "one": one space. "all": every space of the first piece. "none": nothing.
    """

    byte_pieces: bool = True
    added_space: str = "one"

    def decode(self, piece: str, first: bool) -> bytes:
        """The bytes of a piece, at the start of a text or after other pieces."""
        if self.byte_pieces and (match := BYTE.fullmatch(piece)):
            data = bytes.fromhex(match.group(1))
        else:
            data = piece.replace(SPACE, "" if first and self.added_space == "all" else " ").encode()
        return data.removeprefix(b" ") if first and self.added_space == "one" else data
