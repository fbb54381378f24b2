"""The char tokenizer: the lecture's alphabet, exact errors, a lossless file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.errors import UserError
from glassgpt.tokenizers import load_tokenizer
from glassgpt.tokenizers.char import CHUNK, CharTokenizer


def test_alphabet_is_the_sorted_set_of_characters() -> None:
    tokenizer = CharTokenizer.train("hello world")
    assert tokenizer.alphabet == sorted(set("hello world"))
    assert tokenizer.encode("hello") == [tokenizer.alphabet.index(c) for c in "hello"]
    assert tokenizer.vocab_size == 8


def test_shakespeare_has_the_alphabet_of_the_lecture(test_data) -> None:
    text = test_data("tinyshakespeare.txt").read_text()
    tokenizer = CharTokenizer.train(text)
    assert tokenizer.vocab_size == 65
    assert "".join(tokenizer.alphabet) == "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert tokenizer.encode("hii there") == [46, 47, 47, 1, 58, 46, 43, 56, 43]
    ids = tokenizer.encode_to_numpy(text)
    assert ids.dtype == np.uint32
    assert tokenizer.decode(ids) == text


@given(st.text(min_size=1))
def test_any_text_survives(text: str) -> None:
    tokenizer = CharTokenizer.train(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert b"".join(tokenizer.token_bytes(id) for id in tokenizer.encode(text)) == text.encode()
    assert tokenizer.encode_to_numpy(text).tolist() == tokenizer.encode(text)


def test_unknown_character_is_named_with_its_position() -> None:
    tokenizer = CharTokenizer.train("abc")
    with pytest.raises(UserError, match=r"'€' \(U\+20AC\) at position 2 "):
        tokenizer.encode("ab€")
    text = "a" * CHUNK + "b€"
    with pytest.raises(UserError, match=rf"at position {CHUNK + 1} "):
        tokenizer.encode_to_numpy(text)


def test_position_counts_special_tokens_before_it() -> None:
    tokenizer = CharTokenizer.train("abc", ["<|end|>"])
    with pytest.raises(UserError, match="at position 8 "):
        tokenizer.encode("a<|end|>x", allowed_special="all")


def test_lone_surrogate_is_refused() -> None:
    with pytest.raises(UserError, match=r"U\+D800, at position 1"):
        CharTokenizer.train("a\ud800")
    with pytest.raises(UserError, match="lone surrogate"):
        CharTokenizer.train("a").encode("\udfff")


def test_empty_text_has_no_alphabet() -> None:
    with pytest.raises(UserError, match="empty"):
        CharTokenizer.train("")


@pytest.mark.parametrize("id", [3, -1, 10**9])
def test_id_outside_the_vocabulary_is_named(id: int) -> None:
    tokenizer = CharTokenizer.train("abc")
    with pytest.raises(UserError, match=f"token id {id} .* 0 to 2"):
        tokenizer.decode([0, id])
    with pytest.raises(UserError, match=f"token id {id} "):
        tokenizer.token_bytes(id)


def test_file_round_trip(tmp_path: Path) -> None:
    tokenizer = CharTokenizer.train("naïve 😀\x00\u2028", ["<|end|>"])
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded.to_dict() == tokenizer.to_dict()
    assert loaded.encode("ï😀<|end|>", allowed_special="all") == [6, 8, 9]
    assert loaded.token_bytes(9) == b""
    assert loaded.decode([6, 9]) == "ï<|end|>"
