"""Split patterns, and the cuts that they do not notice."""

from __future__ import annotations

import itertools
import re
import unicodedata

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.tokenizers import patterns
from glassgpt.tokenizers.patterns import (
    ANYWHERE,
    BLANK_STRIDE,
    O200K,
    PATTERNS,
    SAFE_CUTS,
    safe_cut,
    safe_slices,
    safe_stream,
    split_long_blanks,
)
from glassgpt.tokenizers.printable import BYTE_ORDER
from glassgpt.tokenizers.ranked import RankedTokenizer

# GPT-2's pattern as published, https://github.com/openai/gpt-2/blob/master/src/encoder.py, and cl100k's,
# https://github.com/openai/tiktoken/blob/0.3.0/tiktoken_ext/openai_public.py
PUBLISHED = {
    "gpt2": r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    "cl100k": r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",  # noqa: E501
}
# https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/tokenizer.json: as that, but for digits
PUBLISHED |= {"llama3": PUBLISHED["cl100k"], "qwen": PUBLISHED["cl100k"].replace("{1,3}", "")}
texts = st.text(st.sampled_from("aBé字1²' \n\r\t\u3000\x1c_!/\u0301🙂sl"), max_size=60)


@given(texts)
@settings(max_examples=500)
def test_possessive_patterns_split_as_the_published_ones(text: str) -> None:
    # At the end of a text, tiktoken's cl100k takes whitespace as one word, and the published one ends it at a newline.
    for name, whole in (("gpt2", text), ("cl100k", f"{text}x"), ("llama3", text), ("qwen", text)):
        words = regex.findall(PATTERNS[name], whole)
        assert words == regex.findall(PUBLISHED[name], whole)
        assert "".join(words) == whole


# Where the patterns differ: kinds of whitespace, \x1c (whitespace for Python alone), newlines after punctuation, "/",
# apostrophes, text without whitespace, lines of one character.
PIECES = [
    *"aBé1²٣_!/'.,:?\"{}()今天，。ーが\u0301ſ🙂sl \t\n\r\x0b\x1c\x85\xa0\u2028\u3000",
    "\r\n", "\n\n", "  ", "'s", "'LL", "}\n", "/\n", "\n/", "...", "。\n", "return x\n    ",
]  # fmt: skip
mixtures = st.lists(st.sampled_from(PIECES), min_size=2, max_size=6, unique=True).flatmap(
    lambda pieces: st.lists(st.sampled_from(pieces), max_size=30).map("".join)
)


def byte_pairs(expression: str) -> tiktoken.Encoding:
    """tiktoken with a split pattern over bytes and all their pairs: a pair in another place has another id."""
    pairs = [bytes([first, second]) for first in range(256) for second in range(256)]
    ranks = {token: id for id, token in enumerate([*(bytes([byte]) for byte in range(256)), *pairs])}
    return tiktoken.Encoding("pairs", pat_str=expression, mergeable_ranks=ranks, special_tokens={"<end>": 99999})


ENCODINGS = [byte_pairs(expression) for expression in SAFE_CUTS]


def with_special_tokens(encoding: tiktoken.Encoding) -> RankedTokenizer:
    tokens = {id: token for token, id in encoding._mergeable_ranks.items()}
    specials = {name: len(tokens) + number for number, name in enumerate(["<!>", "<a b>", "x\n y"])}
    return RankedTokenizer("pairs", encoding, {**tokens, max(specials.values()): b""}, specials)


WITH_SPECIAL_TOKENS = [with_special_tokens(encoding) for encoding in ENCODINGS]


@given(mixtures, st.integers(1, 5))
@settings(max_examples=400)
def test_slices_have_the_ids_and_the_words_of_the_whole(text: str, size: int) -> None:
    for encoding in ENCODINGS:
        slices = list(safe_slices(text, size, safe_cut(encoding._pat_str)))
        assert "".join(slices) == text
        assert [id for part in slices for id in encoding.encode_ordinary(part)] == encoding.encode_ordinary(text)
        words = [word for part in slices for word in regex.findall(encoding._pat_str, part)]
        assert words == regex.findall(encoding._pat_str, text)


@pytest.mark.parametrize(
    "line",
    [
        "今天天气很好，我们去公园。\n", "今天天气很好，我们去公园。", "今天天气很好\n\n", "！！\r\n",
        "a\n", "}\n", "}\n\n", "%\r\n", "    });\n", "\t}\r\n", "    pass\n", "  да\n",
        "x = f(y)  # ...\n", '{"a":1,"b":[]}', "- - -\n", "\x1c \x1c\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", PATTERNS)
def test_a_stream_of_any_text_is_cut_near_its_size(name: str, line: str) -> None:
    cut = safe_cut(PATTERNS[name])
    slices = list(safe_stream(itertools.repeat(line, 5000), 1000, cut))
    assert "".join(slices) == line * 5000
    assert max(map(len, slices)) <= 2000 + 2 * len(line)


def test_the_patterns_of_tiktoken_are_known() -> None:
    for name, expression in (("gpt2", PATTERNS["gpt2"]), ("cl100k_base", PATTERNS["cl100k"]), ("o200k_base", O200K)):
        openai = pytest.importorskip("tiktoken_ext.openai_public")
        with pytest.MonkeyPatch.context() as patch:
            for loader in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"):
                patch.setattr(openai, loader, lambda *arguments, **named: {})
            assert getattr(openai, name)()["pat_str"] == expression


def test_the_letters_of_safe_cuts_are_letters() -> None:
    letters = re.compile(f"[{patterns._LETTER}]")
    marks = re.compile(f"[{patterns._MARK}]")
    for character in map(chr, range(0x10000)):
        if letters.match(character):
            assert regex.match(r"[\p{L}\p{N}]", character)
        if marks.match(character):
            assert regex.match(r"[^\s\p{L}\p{N}\p{M}]", character)


def test_a_text_with_an_unknown_pattern_is_not_cut() -> None:
    assert safe_cut(r"[\s\S]{1,7}") is None
    assert list(safe_slices("some words " * 9, 5, None)) == ["some words " * 9]
    assert list(safe_stream(["some words "] * 9, 5, None)) == ["some words " * 9]


@given(st.lists(st.text("ab <>", max_size=9)), st.integers(1, 5))
@settings(max_examples=500)
def test_stream_cuts_no_special_token(parts: list[str], size: int) -> None:
    names = ["<a b>", "a b", "b a b", "a\n", "a>"]
    text = "".join(parts)
    slices = list(safe_stream(parts, size, safe_cut(PATTERNS["gpt2"]), names))
    assert "".join(slices) == text
    special = regex.compile("|".join(sorted(map(regex.escape, names), key=len, reverse=True)))
    assert [match for part in slices for match in special.findall(part)] == special.findall(text)


@given(
    st.lists(st.sampled_from(["a", "!", "\n", "\r\n", " ", "<!>", "<a b>", "x\n y"]), max_size=25), st.integers(1, 4)
)
@settings(max_examples=200)
def test_a_stream_with_special_tokens_has_the_ids_of_the_whole(parts: list[str], size: int) -> None:
    """A special token ends the text before it and begins another: what it hides must not make a cut seem safe."""
    for tokenizer in WITH_SPECIAL_TOKENS:
        slices = safe_stream(parts, size, tokenizer.safe_cut, tokenizer.special_tokens)
        ids = [id for part in slices for id in tokenizer.encode(part, allowed_special="all")]
        assert ids == tokenizer.encode("".join(parts), allowed_special="all")


def test_long_slices_are_cut_near_their_size() -> None:
    for cut in SAFE_CUTS.values():
        assert [len(part) for part in safe_slices("word " * 1000, 1000, cut)] == [1004, 1000, 1000, 1000, 996]
        assert list(safe_slices("a" * 5000, 1000, cut)) == ["a" * 5000]
    assert [len(part) for part in safe_slices("a" * 5000, 2000, ANYWHERE)] == [2000, 2000, 1000]


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
