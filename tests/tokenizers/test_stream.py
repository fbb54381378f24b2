"""Streamed text: whole characters only, and in the end the same text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.printable import BYTE_ORDER
from glassgpt.tokenizers.stream import StreamDecoder

BYTES = BPETokenizer(dict(enumerate(BYTE_ORDER)), [], ["<end>"])


def stream(tokenizer, ids) -> list[str]:
    decoder = StreamDecoder(tokenizer)
    return [*map(decoder.feed, ids), decoder.flush()]


def test_a_character_appears_when_its_last_byte_does() -> None:
    assert stream(BYTES, BYTES.encode("a🙂é")) == ["a", "", "", "", "🙂", "", "é", ""]


def test_an_unfinished_character_is_replaced_at_the_end() -> None:
    assert stream(BYTES, BYTES.encode("a🙂")[:-1]) == ["a", "", "", "", "\ufffd"]
    assert stream(BYTES, [*BYTES.encode("🙂")[:2], BYTES.special_tokens["<end>"]]) == ["", "", "\ufffd<end>", ""]


@given(st.text())
def test_whole_text_comes_out_of_whole_characters(text: str) -> None:
    pieces = stream(BYTES, BYTES.encode(text))
    assert "".join(pieces) == text
    assert all(len(piece) <= 1 for piece in pieces)


@given(st.lists(st.integers(0, 256)))
def test_any_ids_give_what_decode_gives(ids: list[int]) -> None:
    assert "".join(stream(BYTES, ids)) == BYTES.decode(ids)


@pytest.mark.parametrize("text", ["hello", "wörld 🙂", "<end>"])
def test_char_tokenizer(text: str) -> None:
    tokenizer = CharTokenizer.train("hello wörld 🙂", ["<end>"])
    ids = tokenizer.encode(text, allowed_special="all")
    assert "".join(stream(tokenizer, ids)) == text
