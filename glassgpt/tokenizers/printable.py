"""GPT-2's order of the 256 bytes, and its mapping of bytes to printable characters.

Bytes that are printable in Latin-1 come first and map to themselves. The others map to the characters from U+0100 on.
For example, the space (byte 32) has id 220 and is written "Ġ". GPT-2's and Hugging Face's vocabulary files use this.
"""

from __future__ import annotations

_VISIBLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]

BYTE_ORDER = [bytes([byte]) for byte in _VISIBLE + _HIDDEN]  # BYTE_ORDER[id] is the byte with that id

_TO_CHARACTER = {byte: chr(byte) for byte in _VISIBLE} | {byte: chr(256 + n) for n, byte in enumerate(_HIDDEN)}
_TO_BYTE = {character: byte for byte, character in _TO_CHARACTER.items()}


def to_printable(data: bytes) -> str:
    """One printable character for each byte."""
    return "".join(map(_TO_CHARACTER.__getitem__, data))


def from_printable(text: str) -> bytes:
    """The inverse of `to_printable`. Raises ValueError for a character that does not stand for a byte."""
    try:
        return bytes(map(_TO_BYTE.__getitem__, text))
    except KeyError as error:
        raise ValueError(f"{error} in {text!r} does not stand for a byte") from None
