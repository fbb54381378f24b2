"""Counting the words of a text, in several processes: the first half of training a BPE tokenizer.

A worker is a Python process that runs this module's `main`. `multiprocessing` is not used: its fork is unsafe beside
torch's threads, and its spawn runs the caller's script again, which fails without `if __name__ == "__main__"`.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import regex

from glassgpt.errors import UserError
from glassgpt.tokenizers.base import split_special, to_utf8
from glassgpt.tokenizers.patterns import safe_slices, split_pattern

SLICE = 1 << 20  # characters sent to a worker at a time
SMALL = 4 << 20  # characters that one process counts sooner than it starts others


def count_words(
    text: str | Iterable[str], pattern: str = "gpt2", special_tokens: Iterable[str] = (), processes: int | None = None
) -> Counter[str]:
    """How often each word occurs in the text, or in texts that are each split on their own.

    Special tokens separate words and are not counted. `processes` is the number of workers, by default one for each
    core for text of more than a few million characters.
    """
    if processes is not None and processes < 1:
        raise UserError(f"processes is {processes}, and must be 1 or more")
    slices = iter_slices([text] if isinstance(text, str) else text, list(special_tokens))
    first = list(take(slices, SMALL))
    slices = itertools.chain(first, slices)
    small = sum(map(len, first)) < SMALL
    workers = processes if processes is not None else 1 if small else available_cores()
    if workers == 1 or not sys.executable:
        return count_slices(slices, pattern)
    return count_in_workers(slices, pattern, workers)


def iter_slices(texts: Iterable[str], special_tokens: list[str]) -> Iterator[str]:
    """The texts without special tokens, in slices that can be split into words one by one."""
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"a tokenizer is trained on text, or on an iterable of texts, not on {type(text).__name__}")
        to_utf8(text)
        for piece, special in split_special(text, special_tokens, "all"):
            if not special:
                yield from safe_slices(piece, SLICE)


def take(slices: Iterator[str], size: int) -> Iterator[str]:
    """The first slices, until they have `size` characters."""
    while size > 0 and (part := next(slices, None)) is not None:
        size -= len(part)
        yield part


def count_slices(slices: Iterable[str], pattern: str) -> Counter[str]:
    """How often each word occurs in slices that are split one by one, counted in this process."""
    words = regex.compile(split_pattern(pattern)).findall
    counts: Counter[str] = Counter()
    for part in slices:
        counts.update(words(part))
    return counts


def count_in_workers(slices: Iterable[str], pattern: str, workers: int) -> Counter[str]:
    """Deal the slices to workers in turn, then add up their counts. A full pipe makes the dealing wait."""
    pool = [start_worker(pattern) for _ in range(workers)]
    try:
        for part, worker in zip(slices, itertools.cycle(pool), strict=False):
            send(worker, part)
        for worker in pool:
            finish(worker)
        counts: Counter[str] = Counter()
        for worker in pool:
            counts.update(receive(worker))
        return counts
    finally:
        for worker in pool:
            worker.kill()
            with worker:  # closes its pipes
                pass


def start_worker(pattern: str) -> subprocess.Popen[str]:
    """A process that counts the words of what `send` gives it."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import {__name__} as words; words.main({pattern!r})"],
        env=worker_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="ascii",
    )


def worker_environment() -> dict[str, str]:
    """Variables with which a worker imports this package from where this process did, installed or not."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)}


def send(worker: subprocess.Popen[str], part: str) -> None:
    """Give a worker one slice; waits while the worker is busy with an earlier one."""
    assert worker.stdin is not None
    try:
        worker.stdin.write(json.dumps(part) + "\n")
    except BrokenPipeError:
        raise stopped(worker) from None


def finish(worker: subprocess.Popen[str]) -> None:
    """Tell a worker that it has had its last slice."""
    assert worker.stdin is not None
    try:
        worker.stdin.close()
    except BrokenPipeError:
        raise stopped(worker) from None


def receive(worker: subprocess.Popen[str]) -> dict[str, int]:
    """The counts of a worker that has finished."""
    assert worker.stdout is not None
    answer = worker.stdout.read()
    if worker.wait() != 0:
        raise stopped(worker)
    counts: dict[str, int] = json.loads(answer)
    return counts


def stopped(worker: subprocess.Popen[str]) -> UserError:
    """The error for a worker that ended before its answer."""
    return UserError(
        f"a process that counts words stopped with exit code {worker.wait()} (is memory short?); "
        "train with processes=1 to count without it"
    )


def available_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(pattern: str) -> None:
    """A worker: each line of stdin is a slice in JSON; at its end, the counts are one line of JSON on stdout."""
    print(json.dumps(count_slices(map(json.loads, sys.stdin), pattern)))
