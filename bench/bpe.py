"""Trains and encodes beside Hugging Face's tokenizers and tiktoken, in turn in one run.

    python bench/bpe.py --repeats 3
    python bench/bpe.py --data shakespeare.txt --vocab-size 4096
    python bench/bpe.py --data shakespeare.txt --characters 1500 20000 200000 --repeats 9

The default text is the source of Python's standard library, every .py file below it that is UTF-8, about 31 MB as one
string. Training must give the merges of Hugging Face's BpeTrainer. Encoding is compared with tiktoken given the same
ranks. Times are the median of the repeats, wall clock; each figure is taken in turn, so that a busy machine is busy for
both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiktoken
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.patterns import PATTERNS
from glassgpt.tokenizers.printable import from_printable


def main() -> None:
    """Both benchmarks, and whether the results are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a text file instead of the standard library")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, help="processes that count words (default: one for each core)")
    parser.add_argument(
        "--characters", type=int, nargs="+", help="only train, on beginnings of the text of these sizes"
    )
    options = parser.parse_args()
    text = options.data.read_text(encoding="utf-8") if options.data else standard_library()
    size = f"{len(text):,} characters, {len(text.encode()):,} bytes"
    print(f"text: {size}; {os.cpu_count()} cores, Python {sys.version.split()[0]}")

    if options.characters:
        for characters in options.characters:
            train_on(text[:characters], options.vocab_size, options.repeats)
        return

    ours, theirs = in_turn(
        options.repeats,
        lambda: BPETokenizer.train(text, options.vocab_size, processes=options.processes),
        lambda: train_huggingface(text, options.vocab_size),
    )
    same = ours.result.merges == huggingface_merges(theirs.result)
    report("train, glassgpt", ours, "train, Hugging Face", theirs)
    print(f"merges equal: {same} ({len(ours.result.merges):,})")

    tokenizer = ours.result
    ranks = {token: id for id, token in tokenizer.vocab.items()}
    raw = tiktoken.Encoding("bench", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})
    ours, theirs = in_turn(options.repeats, lambda: tokenizer.encode(text), lambda: raw.encode_ordinary(text))
    report("encode, glassgpt", ours, "encode, tiktoken", theirs)
    print(f"ids equal: {ours.result == theirs.result} ({len(ours.result):,})")
    corpus, _ = in_turn(options.repeats, lambda: tokenizer.encode_to_numpy(text), lambda: None)
    print(
        f"{'encode_to_numpy, glassgpt':<28} {corpus.seconds:7.2f} s   equal: {corpus.result.tolist() == theirs.result}"
    )
    stream, _ = in_turn(
        1, lambda: sum(1 for _ in tokenizer.encode_iterable(text.splitlines(keepends=True))), lambda: None
    )
    print(f"{'encode_iterable, glassgpt':<28} {stream.seconds:7.2f} s   equal: {stream.result == len(theirs.result)}")
    if not same:
        sys.exit("the merges differ")


def train_on(text: str, vocab_size: int, repeats: int) -> None:
    """The least times to train on one small text: the median of so short times is that of other work beside them."""
    ours, theirs = in_turn(
        repeats, lambda: BPETokenizer.train(text, vocab_size), lambda: train_huggingface(text, vocab_size)
    )
    ms, other = 1000 * min(ours.times), 1000 * min(theirs.times)
    merges = ours.result.merges
    print(
        f"{len(text):>9,} characters: glassgpt {ms:8.1f} ms, Hugging Face {other:8.1f} ms, ratio {ms / other:5.2f}; "
        f"{len(merges):,} merges, equal: {merges == huggingface_merges(theirs.result)}"
    )
    if merges != huggingface_merges(theirs.result):
        sys.exit("the merges differ")


class Timed:
    """The last result of a function, and the median of its times."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def run(self, function: Callable[[], Any]) -> None:
        """Call it once more."""
        start = time.perf_counter()
        self.result = function()
        self.times.append(time.perf_counter() - start)

    @property
    def seconds(self) -> float:
        """The median time."""
        return statistics.median(self.times)


def in_turn(repeats: int, *functions: Callable[[], object]) -> list[Timed]:
    """Each function once, then each again."""
    timed = [Timed() for _ in functions]
    for _ in range(repeats):
        for function, record in zip(functions, timed, strict=True):
            record.run(function)
    return timed


def report(name: str, ours: Timed, other: str, theirs: Timed) -> None:
    """Both times and their ratio."""
    for label, timed in ((name, ours), (other, theirs)):
        spread = ", ".join(f"{seconds:.2f}" for seconds in timed.times)
        print(f"{label:<28} {timed.seconds:7.2f} s   ({spread})")
    print(f"{'ratio':<28} {ours.seconds / theirs.seconds:7.2f}")


def standard_library() -> str:
    """Every .py file of the standard library, in order of its path, as one string."""
    folder = Path(sysconfig.get_path("stdlib"))
    texts = []
    for path in sorted(folder.rglob("*.py")):
        if "site-packages" not in path.parts:
            try:
                texts.append(path.read_bytes().decode("utf-8"))
            except UnicodeDecodeError:  # a few tests of encodings
                continue
    return "".join(texts)


def train_huggingface(text: str, vocab_size: int) -> Tokenizer:
    """The same task for Hugging Face: byte level, no prefix space, its whole initial alphabet, one string."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def huggingface_merges(tokenizer: Tokenizer) -> list[tuple[bytes, bytes]]:
    """Its merges as bytes."""
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(from_printable(first), from_printable(second)) for first, second in merges]


if __name__ == "__main__":
    main()
