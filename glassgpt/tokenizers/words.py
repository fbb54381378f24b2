"""Counts the words of a text in several processes: the first half of training a BPE tokenizer.

One thread per core runs `word_counter.py` as a script, once per chunk of text. A `ProcessPoolExecutor` would not work
here: its fork is unsafe with torch's threads; its spawn and forkserver run the caller's script again, which fails
without `if __name__ == "__main__"`; and its workers survive when their parent is killed. A script ends with its stdin.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from glassgpt.errors import UserError
from glassgpt.tokenizers import word_counter
from glassgpt.tokenizers.base import split_special, to_utf8
from glassgpt.tokenizers.patterns import safe_cut, safe_slices, split_pattern
from glassgpt.tokenizers.threads import available_cores, map_in_threads
from glassgpt.tokenizers.word_counter import count_slices

SLICE = 1 << 20  # characters that are split into words at once
CHUNK = 4 << 20  # characters per worker process
# Below this many characters no processes are started. From about 2 million on they sometimes save time, never much.
SMALL = CHUNK


def count_words(
    text: str | Iterable[str], pattern: str = "gpt2", special_tokens: Iterable[str] = (), processes: int | None = None
) -> Counter[str]:
    """How often each word occurs in a text, or in several texts that are split independently.

    Special tokens separate words and are not counted. `processes` is the number of workers. By default it is the number
    of cores for text of more than a few million characters, else 1.
    """
    if processes is not None and processes < 1:
        raise UserError(f"processes is {processes}, but must be 1 or more")
    expression = split_pattern(pattern)
    slices = iter_slices([text] if isinstance(text, str) else text, safe_cut(expression), list(special_tokens))
    first = list(take(slices, SMALL))
    slices = itertools.chain(first, slices)
    small = sum(map(len, first)) < SMALL
    workers = processes if processes is not None else 1 if small else available_cores()
    if workers == 1 or not sys.executable:
        return count_slices(slices, expression)
    counts: Counter[str] = Counter()
    chunks = iter(lambda: list(take(slices, CHUNK)), [])
    for _, part in map_in_threads(partial(count_in_process, expression), chunks, workers):
        counts.update(part)
    return counts


def iter_slices(texts: Iterable[str], cut: re.Pattern[str] | None, special_tokens: list[str]) -> Iterator[str]:
    """The texts without special tokens, in slices that can be split into words independently."""
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"a tokenizer is trained on a text or an iterable of texts, not on {type(text).__name__}")
        to_utf8(text)
        for piece, special in split_special(text, special_tokens, "all"):
            if not special:
                yield from safe_slices(piece, SLICE, cut)


def take(slices: Iterator[str], size: int) -> Iterator[str]:
    """The next slices, until they have `size` characters in total."""
    while size > 0 and (part := next(slices, None)) is not None:
        size -= len(part)
        yield part


def count_in_process(expression: str, slices: list[str]) -> dict[str, int]:
    """The result of `count_slices`, computed in another process."""
    # -P and the parent's path: the worker imports the same `regex` as this process, never a module of this folder.
    # A new session keeps Ctrl-C away from the worker: only the parent handles it.
    done = subprocess.run(
        [sys.executable, "-P", word_counter.__file__, expression],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)},
        input=json.dumps(slices).encode(),
        capture_output=True,
        start_new_session=True,
    )
    if done.returncode != 0:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["out of memory?"])[-1]
        raise UserError(
            f"a process that counts words stopped with exit code {done.returncode} ({reason}); "
            "train with processes=1 to count in this process"
        )
    counts: dict[str, int] = json.loads(done.stdout)
    return counts
