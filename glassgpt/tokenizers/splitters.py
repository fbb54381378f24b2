"""Splits a normalised text into words, as the `tokenizers` library does ("pre_tokenizer")."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from glassgpt.errors import UserError
from glassgpt.tokenizers.unicode_classes import PUNCTUATION, WHITESPACE

Json = dict[str, Any]
# A part of a text, and whether the whole text begins with it, to its words.
Splitter = Callable[[str, bool], list[str]]

SPACE = "▁"  # stands for a space in the words of SentencePiece
_NO_BLANKS = re.compile(f"[^{WHITESPACE.as_class()}]+")
_BERT = re.compile(
    f"[{PUNCTUATION.as_class()}]|[^{WHITESPACE.as_class()}{PUNCTUATION.as_class()}]+"
)  # a punctuation mark is a word
_FROM_SPACE = re.compile(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+")


def build_splitter(spec: Json | None) -> Splitter:
    """The splitter of tokenizer.json's "pre_tokenizer". Raises UserError for a kind that cannot be reproduced."""
    if spec is None:
        return lambda text, first: [text]
    kind = spec["type"]
    if kind == "Sequence":
        steps = spec["pretokenizers"]
        if any(step["type"] == "Metaspace" and _scheme(step) == "first" for step in steps[1:]):
            raise UserError("it adds a space before the first of several words, which is not known here")
        return partial(_in_order, [build_splitter(step) for step in steps])
    if kind == "WhitespaceSplit":
        return lambda text, first: _NO_BLANKS.findall(text)
    if kind == "BertPreTokenizer":
        return lambda text, first: _BERT.findall(text)
    if kind == "Metaspace":
        if spec["replacement"] != SPACE:
            raise UserError(f"it writes {spec['replacement']!r} for a space, not {SPACE!r}")
        return partial(_metaspace, _scheme(spec), bool(spec.get("split", True)))
    raise UserError(f"its pre-tokenizer ({kind}) is not known here")


def _in_order(steps: list[Splitter], text: str, first: bool) -> list[str]:
    words = [text]
    for step in steps:
        words = [part for word in words for part in step(word, first) if part]
    return words


def _scheme(spec: Json) -> str:
    """Where a space is added: always, first (before a whole text only) or never. Older files say it by a boolean."""
    scheme = str(spec.get("prepend_scheme", "always")).lower()
    return "never" if spec.get("add_prefix_space") is False else scheme


def _metaspace(scheme: str, split: bool, text: str, first: bool) -> list[str]:
    text = text.replace(" ", SPACE)
    if text and not text.startswith(SPACE) and (scheme == "always" or (scheme == "first" and first)):
        text = SPACE + text
    return _FROM_SPACE.findall(text) if split else [text]
