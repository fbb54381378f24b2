"""How a word is built from its bytes: the steps end at what encoding gives, and each applies the next merge."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.tokenizers.bpe import BPETokenizer, apply_merges
from glassgpt.tokenizers.pretrained import PretrainedTokenizer
from glassgpt.tokenizers.printable import BYTE_ORDER

TRAINED = BPETokenizer.train("low lower lowest newer wider é字 élan " * 5, vocab_size=290)


def test_a_word_worked_by_hand() -> None:
    """Sennrich et al. 2016 in small: "aab" is learned before "ab", so the pair with the lower id comes first."""
    tokenizer = BPETokenizer(dict(enumerate(BYTE_ORDER)) | {256: b"ab", 257: b"aab"}, [(b"a", b"b"), (b"a", b"ab")])
    a, b = BYTE_ORDER.index(b"a"), BYTE_ORDER.index(b"b")
    steps = tokenizer.merge_steps("aab")
    assert [step.ids for step in steps] == [[a, a, b], [a, 256], [257]]
    assert [step.ranks for step in steps] == [[None, 256], [257], []]
    assert [step.place for step in steps] == [1, 0, None]


@given(st.text("lowernst é字x\n", max_size=30))
@settings(max_examples=200)
def test_the_steps_end_at_the_tokens_of_the_text(text: str) -> None:
    words = TRAINED.words(text)
    assert "".join(words) == text
    assert [id for word in words for id in TRAINED.merge_steps(word)[-1].ids] == TRAINED.encode(text)


@given(st.text("lowern é字", min_size=1, max_size=15))
def test_each_step_applies_one_merge_of_the_definition(word: str) -> None:
    order = {pair: number for number, pair in enumerate(TRAINED.merges)}
    for step in TRAINED.merge_steps(word):
        parts = [TRAINED.vocab[id] for id in step.ids]
        assert parts == apply_merges(word.encode(), order, fewest=len(parts))


def test_a_word_that_is_looked_up_whole_ends_whole() -> None:
    vocab = dict(enumerate(BYTE_ORDER)) | {256: b"ab", 257: b"abc"}
    tokenizer = BPETokenizer(vocab, [(b"a", b"b")], ignore_merges=True)
    assert [len(step.ids) for step in tokenizer.merge_steps("abc")] == [3, 2, 1]
    assert tokenizer.merge_steps("abc")[-1].ids == tokenizer.encode("abc") == [257]


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "o200k_base"])
def test_published_vocabularies(name: str, test_data) -> None:
    test_data("tiktoken")
    tokenizer = PretrainedTokenizer.from_name(name)
    text = "Unbelievably, we'LL re-tokenize 12345 naïve cafés; 你好, 👩‍🚀!\n\n    def f(x):\n"
    words = tokenizer.words(text)
    assert "".join(words) == text
    assert [id for word in words for id in tokenizer.merge_steps(word)[-1].ids] == tokenizer.encode(text)
