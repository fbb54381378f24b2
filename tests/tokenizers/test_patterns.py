"""Split patterns, and the cuts that they do not notice."""

from __future__ import annotations

import unicodedata

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.tokenizers.patterns import BLANK_STRIDE, PATTERNS, safe_slices, safe_stream, split_long_blanks
from glassgpt.tokenizers.printable import BYTE_ORDER

# GPT-2's pattern as published, https://github.com/openai/gpt-2/blob/master/src/encoder.py, and cl100k's,
# https://github.com/openai/tiktoken/blob/0.3.0/tiktoken_ext/openai_public.py
PUBLISHED = {
    "gpt2": r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    "cl100k": r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",  # noqa: E501
}
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ]
)
texts = st.text(st.sampled_from("aBé字1²' \n\r\t\u3000\x1c_!/\u0301🙂sl"), max_size=60)


@given(texts)
@settings(max_examples=500)
def test_possessive_patterns_split_as_the_published_ones(text: str) -> None:
    # At the end of a text, tiktoken's cl100k takes whitespace as one word, and the published one ends it at a newline.
    for name, whole in (("gpt2", text), ("cl100k", f"{text}x")):
        words = regex.findall(PATTERNS[name], whole)
        assert words == regex.findall(PUBLISHED[name], whole)
        assert "".join(words) == whole


@given(texts, st.integers(1, 5))
@settings(max_examples=500)
def test_slices_split_as_the_whole(text: str, size: int) -> None:
    slices = list(safe_slices(text, size))
    assert "".join(slices) == text
    for pattern in [*PATTERNS.values(), O200K]:
        assert [word for part in slices for word in regex.findall(pattern, part)] == regex.findall(pattern, text)


@given(st.lists(st.text("ab <>", max_size=9)), st.integers(1, 5))
@settings(max_examples=500)
def test_stream_cuts_no_special_token(parts: list[str], size: int) -> None:
    names = ["<a b>", "a b", "b a b", "a\n"]
    text = "".join(parts)
    slices = list(safe_stream(parts, size, names))
    assert "".join(slices) == text
    special = regex.compile("|".join(sorted(map(regex.escape, names), key=len, reverse=True)))
    assert [match for part in slices for match in special.findall(part)] == special.findall(text)


def test_long_slices_are_cut_near_their_size() -> None:
    assert [len(part) for part in safe_slices("word " * 1000, 1000)] == [1004, 1000, 1000, 1000, 996]
    assert list(safe_slices("a" * 5000, 1000)) == ["a" * 5000]


def test_only_long_runs_of_whitespace_are_cut() -> None:
    blanks = " \n" * (2 * BLANK_STRIDE)
    parts = split_long_blanks(f"word{blanks}word")
    assert "".join(parts) == f"word{blanks}word"
    assert max(map(len, parts)) < 2 * BLANK_STRIDE
    for text in ("", "a", "ab " * BLANK_STRIDE, " " * BLANK_STRIDE + "a"):
        assert split_long_blanks(text) == [text] or text.isspace()


@pytest.mark.parametrize(("inside", "kind"), [("a", r"\p{L}"), ("1", r"\p{N}"), ("!", r"[^\s\p{L}\p{N}]")])
def test_training_and_encoding_agree_on_every_known_character(inside: str, kind: str) -> None:
    """The `regex` module splits for training, tiktoken for encoding: same class for all that this Python knows."""
    known = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")][::7]
    words = {f"{inside}{character}{inside}": character for character in known}
    # A word that is a token is encoded as that token: so one id says that tiktoken saw one word.
    ranks = {byte: id for id, byte in enumerate(BYTE_ORDER)}
    ranks |= {word.encode(): 256 + n for n, word in enumerate(words)}
    encoding = tiktoken.Encoding("words", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})
    ours = {character for character in known if regex.fullmatch(kind, character)}
    assert {character for word, character in words.items() if len(encoding.encode_ordinary(word)) == 1} == ours
