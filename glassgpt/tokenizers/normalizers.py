"""Changes of a text before it is split, with the results of the `tokenizers` library for every text.

A normaliser is given as tokenizer.json writes it. That library knows the characters of older versions of Unicode than
Python; `unicode_classes` has its view.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import regex

from glassgpt.errors import UserError
from glassgpt.tokenizers.unicode_classes import (
    BLANKS,
    CHINESE,
    INVISIBLE,
    LOWER,
    MARKS,
    NEW_TO_NORMALIZATION,
    NOT_JOINED,
    WHITESPACE,
)

Json = dict[str, Any]
Normalizer = Callable[[str], str]

_NEW = re.compile(f"([{NEW_TO_NORMALIZATION.as_class()}])")


class CharacterMap(dict[int, str]):
    """For `str.translate`: what each character becomes, computed when it is first seen."""

    def __init__(self, change: Callable[[str], str]) -> None:
        super().__init__()
        self._change = change

    def __missing__(self, code: int) -> str:
        self[code] = changed = self._change(chr(code))
        return changed


def build_normalizer(spec: Json | None) -> Normalizer:
    """The normaliser of tokenizer.json's "normalizer". Raises UserError for a kind that cannot be reproduced."""
    if spec is None:
        return str
    kind = spec["type"]
    if kind == "Sequence":
        return partial(_in_order, [build_normalizer(step) for step in spec["normalizers"]])
    if kind == "BertNormalizer":
        return BertNormalizer(spec)
    if kind in ("NFC", "NFD", "NFKC", "NFKD"):
        return partial(unicode_form, kind)
    if kind == "Prepend":
        return partial(_prepend, spec["prepend"])
    if kind == "Replace":
        return _replacer(spec["pattern"], spec["content"])
    if kind == "Strip":
        return partial(_strip, bool(spec["strip_left"]), bool(spec["strip_right"]))
    if kind == "Precompiled":
        return Charsmap(base64.b64decode(spec["precompiled_charsmap"], validate=True))
    raise UserError(f"it normalises text ({kind}) in a way that is not known here")


def _in_order(steps: list[Normalizer], text: str) -> str:
    for step in steps:
        text = step(text)
    return text


def _prepend(prefix: str, text: str) -> str:
    return prefix + text if text else text


def _strip(left: bool, right: bool, text: str) -> str:
    text = text.lstrip(BLANKS) if left else text
    return text.rstrip(BLANKS) if right else text


def _replacer(pattern: Json, content: str) -> Normalizer:
    if pattern == {"Regex": " {2,}"}:  # as files that were converted from SentencePiece models have it
        return partial(re.compile(" {2,}").sub, content.replace("\\", r"\\"))
    if pattern.get("String"):
        old: str = pattern["String"]
        return lambda text: text.replace(old, content)
    raise UserError(f"it replaces a pattern ({pattern}) that is not known here")


def unicode_form(form: Any, text: str) -> str:
    """`unicodedata.normalize` without the characters that the library does not know: they stay as they are.

    To the library, such a character is a starter that joins with nothing, so the text on both sides is independent.
    """
    if text.isascii():
        return text
    parts = _NEW.split(text)
    parts[::2] = [unicodedata.normalize(form, part) for part in parts[::2]]
    return "".join(parts)


class BertNormalizer:
    """BERT's cleaning of a text (https://github.com/google-research/bert/blob/master/tokenization.py), in four steps.

    Invisible characters vanish and all whitespace becomes a space; Chinese characters get spaces around them; accents
    are removed; letters become lower case. `strip_accents` None means: as `lowercase` says.
    """

    def __init__(self, spec: Json) -> None:
        clean, chinese = bool(spec["clean_text"]), bool(spec["handle_chinese_chars"])
        lowercase, accents = bool(spec["lowercase"]), spec.get("strip_accents")
        strip = lowercase if accents is None else bool(accents)
        self._first = CharacterMap(lambda character: _clean(character, clean, chinese))
        self._second = CharacterMap(lambda character: _simplify(character, strip, lowercase))
        self._strips = strip

    def __call__(self, text: str) -> str:
        text = text.translate(self._first)
        if self._strips:
            text = unicode_form("NFD", text)
        return text.translate(self._second)


def _clean(character: str, clean: bool, chinese: bool) -> str:
    code = ord(character)
    if clean and character not in "\t\n\r" and (code in INVISIBLE or character == "\ufffd"):
        return ""
    if clean and code in WHITESPACE:
        return " "
    return f" {character} " if chinese and code in CHINESE else character


def _simplify(character: str, strip_accents: bool, lowercase: bool) -> str:
    if strip_accents and ord(character) in MARKS:
        return ""
    return LOWER.get(character) or character.lower() if lowercase else character


class Charsmap:
    """The replacements of a SentencePiece model ("precompiled charsmap"): a trie over UTF-8, then the new texts.

    The data is 4 bytes with the size of the trie, the trie as a double array (Aoe 1989,
    https://doi.org/10.1109/32.31365, in the layout of https://github.com/s-yata/darts-clone: units of 32 bits), and the
    texts, each ended by a zero byte. SentencePiece replaces the longest match. The `tokenizers` library asks for each
    grapheme of less than 6 bytes, and replaces all of it by the text of the *shortest* match at its start, else for
    each of its characters. This class does the latter.
    """

    LONGEST = 5  # bytes of a grapheme that is looked up as a whole

    def __init__(self, data: bytes) -> None:
        size = int.from_bytes(data[:4], "little")
        if size == 0 or size % 4 or 4 + size > len(data):
            raise ValueError("the precompiled charsmap is cut off")
        self._units: list[int] = np.frombuffer(data, "<u4", size // 4, 4).tolist()
        self._texts = data[4 + size :]
        self._by_character = CharacterMap(self._character)

    def __call__(self, text: str) -> str:
        if not _JOINING.search(text):  # each grapheme is one character
            return text.translate(self._by_character)
        shadow = text.translate(_STAND_INS)  # of the same length, with the graphemes that the library sees
        return "".join(self._grapheme(text[match.start() : match.end()]) for match in _GRAPHEME.finditer(shadow))

    def _character(self, character: str) -> str:
        found = self._replacement(character.encode())
        return character if found is None else found

    def _grapheme(self, grapheme: str) -> str:
        if len(grapheme) > 1:
            data = grapheme.encode()
            if len(data) <= self.LONGEST and (found := self._replacement(data)) is not None:
                return found
        return grapheme.translate(self._by_character)

    def _replacement(self, data: bytes) -> str | None:
        """The new text of the shortest key that `data` begins with, or None. Raises ValueError for a damaged trie."""
        units = self._units
        try:
            place = _offset(units[0])
            for byte in data:
                place ^= byte
                unit = units[place]
                if byte == 0 or unit & 0x800000FF != byte:
                    return None
                place ^= _offset(unit)
                if unit >> 8 & 1:  # a key ends here
                    start = units[place] & 0x7FFFFFFF
                    stop = self._texts.find(b"\0", start)
                    return self._texts[start : stop if stop >= 0 else None].decode()
        except (IndexError, UnicodeDecodeError):
            raise ValueError("the precompiled charsmap is damaged") from None
        return None


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


_GRAPHEME = regex.compile(r"\X")
_JOINING = regex.compile(r"\r\n|[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}\p{GCB=Prepend}]")
_STAND_INS = CharacterMap(lambda character: "x" if ord(character) in NOT_JOINED else character)
