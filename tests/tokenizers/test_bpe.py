"""BPE as strangers use it: trained here, built from parts, and equal to tiktoken on GPT-2's own vocabulary."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import UserError
from glassgpt.tokenizers import load_tokenizer, word_counter
from glassgpt.tokenizers.bpe import BPETokenizer, apply_merges
from glassgpt.tokenizers.printable import BYTE_ORDER

END = "<|endoftext|>"
BYTES = dict(enumerate(BYTE_ORDER))
SAMPLES = [
    "",
    "?",
    "hello world!!!? (안녕하세요!) lol123 😉",
    "Hello, I'm don't WE'LL  \n\n\t def f(x):\n    return x  \n",
    "s\u0301 é 字 \u200b\x00\x1f \u3000",
    "a" * 1000,
    f"one{END}two{END}{END}",
]


@pytest.fixture(scope="module")
def gpt2(test_data) -> tiktoken.Encoding:
    test_data("tiktoken")
    return tiktoken.get_encoding("gpt2")


@pytest.fixture(scope="module")
def from_parts(gpt2: tiktoken.Encoding) -> BPETokenizer:
    """GPT-2's tokenizer built from a vocabulary and merges, with a special token that begins with another."""
    vocab = {id: token for token, id in gpt2._mergeable_ranks.items()} | {50256: END.encode()}
    return BPETokenizer(vocab, gpt2_merges(gpt2), special_tokens=[END, END + END])


def gpt2_merges(gpt2: tiktoken.Encoding) -> list[tuple[bytes, bytes]]:
    """The merge that made each token: its parts are what its bytes become under the merges before it."""
    order: dict[tuple[bytes, bytes], int] = {}
    for id in range(256, 50256):
        first, second = apply_merges(gpt2.decode_single_token_bytes(id), order)
        order[first, second] = id - 256
    return list(order)


@pytest.fixture(scope="module")
def trained(test_data) -> BPETokenizer:
    text = test_data("tinyshakespeare.txt").read_text()
    return BPETokenizer.train(text[:200_000], vocab_size=600, special_tokens=[END])


@pytest.mark.parametrize("text", SAMPLES)
def test_gpt2_from_parts_equals_tiktoken(text: str, from_parts: BPETokenizer, gpt2: tiktoken.Encoding) -> None:
    assert from_parts.encode(text) == gpt2.encode_ordinary(text)
    assert from_parts.decode(from_parts.encode(text)) == text


def test_gpt2_from_parts_equals_tiktoken_on_shakespeare(from_parts, gpt2, test_data) -> None:
    text = test_data("tinyshakespeare.txt").read_text()
    expected = gpt2.encode_ordinary(text)
    assert from_parts.encode(text) == expected
    ids = from_parts.encode_to_numpy(text)
    assert ids.dtype == np.uint32
    assert ids.tolist() == expected


def test_longest_special_token_wins(from_parts: BPETokenizer) -> None:
    assert from_parts.special_tokens == {END: 50256, END + END: 50257}
    assert from_parts.vocab[50257] == (END + END).encode()
    ids = from_parts.encode(f"a{END}{END}b{END}", allowed_special="all")
    assert ids == [64, 50257, 65, 50256]
    assert from_parts.decode(ids) == f"a{END}{END}b{END}"
    assert from_parts.encode(f"a{END}{END}", allowed_special={END}) == [64, 50256, 50256]


def test_text_becomes_no_special_token_by_itself(from_parts: BPETokenizer, gpt2: tiktoken.Encoding) -> None:
    assert from_parts.encode(END) == gpt2.encode(END, disallowed_special=())
    assert not set(from_parts.encode(f"x{END}")) & set(from_parts.special_tokens.values())
    assert 50256 not in from_parts.encode_to_numpy(END)


def test_unknown_allowed_special_is_refused(from_parts: BPETokenizer) -> None:
    with pytest.raises(UserError, match="'<end>', which is not a special token"):
        from_parts.encode("x", allowed_special={"<end>"})
    with pytest.raises(UserError, match="'all' or a set"):
        from_parts.encode("x", allowed_special=END)


def test_the_example_of_wikipedia() -> None:
    tokenizer = BPETokenizer.train("aaabdaaabac", 256 + 3)
    assert tokenizer.merges == [(b"a", b"a"), (b"a", b"b"), (b"aa", b"ab")]
    a, c, d = (BYTE_ORDER.index(byte) for byte in (b"a", b"c", b"d"))
    assert tokenizer.encode("aaabdaaabac") == [258, d, 258, a, c]


def test_trained_ids_are_bytes_then_merges_then_special_tokens(trained: BPETokenizer) -> None:
    assert trained.vocab_size == len(trained.vocab) == 600
    assert [trained.vocab[id] for id in range(256)] == BYTE_ORDER
    assert [trained.vocab[256 + n] for n in range(343)] == [first + second for first, second in trained.merges]
    assert trained.special_tokens == {END: 599}
    assert trained.token_bytes(599) == b""


def test_special_tokens_are_not_learned_from() -> None:
    text = f"abab{END}abab{END}" * 50
    tokenizer = BPETokenizer.train(text, vocab_size=300, special_tokens=[END])
    assert tokenizer.merges == BPETokenizer.train(["abab", "abab"] * 50, vocab_size=300).merges
    assert tokenizer.merges == [(b"a", b"b"), (b"ab", b"ab")]
    assert tokenizer.vocab_size == 259


def test_processes_change_nothing(test_data) -> None:
    text = test_data("tinyshakespeare.txt").read_text()
    one = BPETokenizer.train(text, vocab_size=300, processes=1)
    assert BPETokenizer.train(text, vocab_size=300, processes=2).merges == one.merges
    assert BPETokenizer.train(iter([text]), vocab_size=300, processes=3).merges == one.merges


def test_workers_need_no_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "from glassgpt.tokenizers.bpe import BPETokenizer\n"
        "print(BPETokenizer.train('ab ab' * 9, 257, processes=2).merges)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[(b'a', b'b')]\n", "")


def test_a_program_from_stdin_starts_workers_too() -> None:
    program = (
        "from glassgpt.tokenizers.bpe import BPETokenizer\n"
        "print(BPETokenizer.train('ab ab' * 9, 257, processes=2).merges)\n"
    )
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[(b'a', b'b')]\n", "")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="a process that is no child is waited for on Linux only")
def test_a_parent_that_is_killed_leaves_no_worker(tmp_path: Path) -> None:
    """The worker here kills its parent, which is still sending, and then counts what it has been sent."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, pathlib, runpy, signal\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "os.kill(os.getppid(), signal.SIGKILL)\n"
        f"runpy.run_path({word_counter.__file__!r}, run_name='__main__')\n"
    )
    program = (
        "from glassgpt.tokenizers import bpe, word_counter\n"
        f"word_counter.__file__ = {str(worker)!r}\n"
        "bpe.BPETokenizer.train('word ' * 300_000, 300, processes=2)\n"
    )
    parent = subprocess.run([sys.executable, "-c", program], timeout=60)
    assert parent.returncode == -signal.SIGKILL
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        handle = os.pidfd_open(int((tmp_path / "pid").read_text()))
        assert select.select([handle], [], [], 60)[0]
        os.close(handle)


def test_a_worker_that_stops_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(UserError, match=r"stopped with exit code 1 .* processes=1"):
        BPETokenizer.train("word " * 100_000, 300, processes=2)


@given(st.text())
@settings(max_examples=200)
def test_any_text_survives(text: str) -> None:
    for tokenizer in (_small("gpt2"), _small("cl100k")):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
        assert tokenizer.encode_to_numpy(text).tolist() == ids


@given(st.text("ab' \n\n1.é字", max_size=40))
@settings(max_examples=200)
def test_encoding_applies_the_merges_in_order(text: str) -> None:
    import regex

    from glassgpt.tokenizers.patterns import PATTERNS

    for pattern in PATTERNS:
        tokenizer = _small(pattern)
        order = {pair: number for number, pair in enumerate(tokenizer.merges)}
        words = regex.findall(PATTERNS[pattern], text)
        expected = [part for word in words for part in apply_merges(word.encode(), order)]
        assert [tokenizer.vocab[id] for id in tokenizer.encode(text)] == expected


_cache: dict[str, BPETokenizer] = {}


def _small(pattern: str) -> BPETokenizer:
    if pattern not in _cache:
        text = "".join(SAMPLES) + "ab ba aab abb b'ab 11 a1 é字 \n\n a\n b" * 3
        _cache[pattern] = BPETokenizer.train(text, vocab_size=330, pattern=pattern)
    return _cache[pattern]


def test_stream_of_lines_equals_the_joined_text(trained: BPETokenizer, test_data) -> None:
    text = test_data("tinyshakespeare.txt").read_text()[:300_000] + "x" * 50_000 + f"  \n {END}{END} y"
    for allowed in (frozenset(), "all"):
        expected = trained.encode(text, allowed_special=allowed)
        assert list(trained.encode_iterable(text.splitlines(keepends=True), allowed_special=allowed)) == expected
        pieces = (text[start : start + 7] for start in range(0, len(text), 7))
        assert list(trained.encode_iterable(pieces, allowed_special=allowed)) == expected


def test_stream_keeps_a_special_token_with_spaces_whole() -> None:
    name = "end of text here"
    tokenizer = BPETokenizer.train("end of text here ", vocab_size=300, special_tokens=[name])
    text = ("word " * 3000 + name) * 20
    expected = tokenizer.encode(text, allowed_special="all")
    assert list(tokenizer.encode_iterable([text], allowed_special="all")) == expected
    assert list(tokenizer.encode_iterable(text, allowed_special="all")) == expected
    assert expected.count(tokenizer.special_tokens[name]) == 20


def test_stream_needs_constant_memory(trained: BPETokenizer) -> None:
    def lines() -> Iterator[str]:
        for number in range(20_000):
            yield f"line {number}: the quick brown fox jumps over the lazy dog, and again over the lazy dog\n"

    tracemalloc.start()
    count = sum(1 for _ in trained.encode_iterable(lines()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count > 300_000
    assert peak < 700_000  # of 1.7 MB of text


@pytest.mark.parametrize(
    ("run", "length"),
    [(" ", 1_100_000), (" \n", 1_100_000), ("a", 200_000), ("1", 200_000), ("!", 200_000), ("字", 200_000)],
)
@pytest.mark.parametrize("pattern", ["gpt2", "cl100k"])
def test_long_runs_are_encoded(run: str, length: int, pattern: str) -> None:
    tokenizer = _small(pattern)
    text = "x" + run * (length // len(run)) + "y z"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode_to_numpy(text)) == text


def test_partial_characters_become_replacement_characters(from_parts: BPETokenizer, gpt2: tiktoken.Encoding) -> None:
    ids = gpt2.encode("🙃")
    assert len(ids) > 1
    for id in ids:
        assert from_parts.decode([id]) == gpt2.decode([id])
        assert "\ufffd" in from_parts.decode([id])
    assert from_parts.decode(np.array(ids)) == "🙃"


@pytest.mark.parametrize("id", [600, -1, 10**12])
def test_id_outside_the_vocabulary_is_named(trained: BPETokenizer, id: int) -> None:
    with pytest.raises(UserError, match=f"token id {id} .* 0 to 599"):
        trained.decode([1, id])
    with pytest.raises(UserError, match=f"token id {id} "):
        trained.token_bytes(id)


def test_lone_surrogate_is_refused(trained: BPETokenizer) -> None:
    for call in (trained.encode, trained.encode_to_numpy, lambda text: BPETokenizer.train(text, 300)):
        with pytest.raises(UserError, match=r"U\+DC80, at position 2"):
            call("ab\udc80")


def test_file_round_trip(trained: BPETokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "bpe.json")
    loaded = load_tokenizer(tmp_path / "bpe.json")
    assert isinstance(loaded, BPETokenizer)
    assert (loaded.vocab, loaded.merges) == (trained.vocab, trained.merges)
    assert loaded.to_dict() == trained.to_dict()
    text = f"To be, or not to be{END}"
    assert loaded.encode(text, allowed_special="all") == trained.encode(text, allowed_special="all")


def test_merges_out_of_order_are_refused() -> None:
    vocab = BYTES | {256: b"ab", 257: b"bc"}
    with pytest.raises(UserError, match=r"merge 1, .* has id 256, but the merge before it has 257: .* order of the"):
        BPETokenizer(vocab, [(b"b", b"c"), (b"a", b"b")])


def test_incomplete_parts_are_refused() -> None:
    with pytest.raises(UserError, match="lacks the byte b'!'"):
        BPETokenizer({1: b"a"}, [])
    with pytest.raises(UserError, match="makes b'ab', which is not in the vocabulary"):
        BPETokenizer(BYTES, [(b"a", b"b")])
    with pytest.raises(UserError, match="joins b'bc', which is not in the vocabulary"):
        BPETokenizer(BYTES | {256: b"abc"}, [(b"a", b"bc")])
    with pytest.raises(UserError, match="not 256 to 'text'"):
        BPETokenizer(BYTES | {256: "text"}, [])


def test_special_token_cannot_take_an_ordinary_id() -> None:
    with pytest.raises(UserError, match=r"'x' cannot have id 3, which stands for b'\$'"):
        BPETokenizer(BYTES, [], {"x": 3})
    with pytest.raises(UserError, match="'a' cannot have id 64"):
        BPETokenizer(BYTES, [], {"a": 64})
    tokenizer = BPETokenizer(BYTES, [], ["a"])
    assert tokenizer.encode("a") == [64]
    assert tokenizer.encode("a", allowed_special="all") == [256]


def test_a_token_that_the_merges_cannot_make_is_never_made() -> None:
    # "bc" is joined before "ab", so that "abc" is never "ab" "c"; tiktoken alone would join "a" "bc".
    vocab = BYTES | {256: b"bc", 257: b"ab", 258: b"abc"}
    tokenizer = BPETokenizer(vocab, [(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")])
    assert [tokenizer.vocab[id] for id in tokenizer.encode("abc ab")] == [b"a", b"bc", b" ", b"ab"]
    assert tokenizer.decode([258]) == "abc"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=9), st.text("abc", max_size=12))
@settings(max_examples=500)
def test_any_merges_mean_what_applying_them_in_order_means(pairs: list[tuple[int, int]], text: str) -> None:
    tokens, merges = [b"a", b"b", b"c"], []
    for left, right in pairs:
        first, second = tokens[left % len(tokens)], tokens[right % len(tokens)]
        if first + second not in tokens:
            merges.append((first, second))
            tokens.append(first + second)
    tokenizer = BPETokenizer(BYTES | {256 + n: first + second for n, (first, second) in enumerate(merges)}, merges)
    expected = apply_merges(text.encode(), {pair: number for number, pair in enumerate(merges)})
    assert [tokenizer.vocab[id] for id in tokenizer.encode(text)] == expected


def test_bytes_may_have_any_ids() -> None:
    vocab = {0: END.encode()} | {1 + n: bytes([n]) for n in range(256)} | {300: b"th", 301: b"the"}
    tokenizer = BPETokenizer(vocab, [(b"t", b"h"), (b"th", b"e")], [END])
    assert tokenizer.encode(f"the{END}", allowed_special="all") == [301, 0]
    assert tokenizer.vocab_size == 302


@pytest.mark.parametrize("vocab_size", [255, 256, 0, -1])
def test_vocabulary_smaller_than_the_bytes_is_refused(vocab_size: int) -> None:
    with pytest.raises(UserError, match="must be 257 or more: 256 bytes and 1 special tokens"):
        BPETokenizer.train("text", vocab_size=vocab_size, special_tokens=[END])


def test_bad_arguments_of_training_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'cl100k'"):
        BPETokenizer.train("text", 300, pattern="cl100")
    with pytest.raises(UserError, match="processes is 0"):
        BPETokenizer.train("text", 300, processes=0)
    with pytest.raises(UserError, match="given twice"):
        BPETokenizer.train("text", 300, special_tokens=[END, END])
    with pytest.raises(UserError, match="not on bytes"):
        BPETokenizer.train([b"text"], 300)


def test_text_without_pairs_trains_the_bytes_alone() -> None:
    assert BPETokenizer.train("", vocab_size=300).merges == []
    assert BPETokenizer.train("a b c", vocab_size=300).vocab_size == 258  # " b" and " c"
