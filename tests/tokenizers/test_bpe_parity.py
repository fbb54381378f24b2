"""The merges learned here are those of Hugging Face's `BpeTrainer`, given the whole text as one string."""

from __future__ import annotations

import json
import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.printable import from_printable

tokenizers = pytest.importorskip("tokenizers")


def huggingface_merges(text: str, vocab_size: int) -> list[tuple[bytes, bytes]]:
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=byte_level.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(from_printable(first), from_printable(second)) for first, second in merges]


def test_shakespeare(test_data) -> None:
    text = test_data("tinyshakespeare.txt").read_text()
    expected = huggingface_merges(text, 4096)
    assert len(expected) == 4096 - 256
    assert BPETokenizer.train(text, vocab_size=4096).merges == expected


def mixed_text() -> str:
    """Scripts, emoji with joiners, combining marks, control characters, odd spaces and 10,000 repeats of one letter."""
    scripts = "Hello wörld Привет мир 你好世界 こんにちは 안녕하세요 שלום עולם مرحبا بالعالم नमस्ते สวัสดี ჰელო ሰላም 𝔘𝔫𝔦 𒀀𒀁"
    emoji = "😀 👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇭 é e\u0301 ﬁ ① Ⅷ ½ ٣٤ ६"
    controls = "".join(map(chr, range(32))) + "\x7f\x80\x85\xa0\u200b\u2028\u2029\u3000\ufeff\ufffd"
    pick = random.Random(1)
    words = (scripts + " " + emoji).split(" ")
    lines = [
        "".join(pick.choice(words) + pick.choice([" ", "  ", "\n", "\t", "", ", "]) for _ in range(30))
        for _ in range(200)
    ]
    return "\n".join([*lines, controls, controls[::-1], "a" * 10_000, " " * 501, "\n" * 77, "end"])


def test_mixed_scripts_controls_and_repeats() -> None:
    text = mixed_text()
    expected = huggingface_merges(text, 2048)
    assert len(expected) > 500
    assert BPETokenizer.train(text, vocab_size=2048).merges == expected


@given(
    st.one_of(st.text("ab", max_size=60), st.text("aA b\n", max_size=60), st.text("aé🙂' s1\t", max_size=40)),
    st.integers(256, 300),
)
@settings(max_examples=500)
def test_small_texts(text: str, vocab_size: int) -> None:
    assert BPETokenizer.train(text, vocab_size=vocab_size).merges == huggingface_merges(text, vocab_size)


def test_any_characters_that_this_python_knows() -> None:
    pick = random.Random(2)
    known = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]
    text = "".join(pick.choice(known) + pick.choice(["", "", " ", "a", "1"]) for _ in range(30_000))
    assert BPETokenizer.train(text, vocab_size=700).merges == huggingface_merges(text, 700)
