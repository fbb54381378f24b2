"""Counts words. As a script with a regular expression, it reads text slices from stdin and prints counts, as JSON.

It imports nothing from glassgpt, so that the process starts in a few hundredths of a second.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable

import regex


def count_slices(slices: Iterable[str], expression: str) -> Counter[str]:
    """How often each word (a match of the expression) occurs in the slices, which are split independently."""
    words = regex.compile(expression).findall
    counts: Counter[str] = Counter()
    for part in slices:
        counts.update(words(part))
    return counts


if __name__ == "__main__":
    print(json.dumps(count_slices(json.load(sys.stdin), sys.argv[1])))
