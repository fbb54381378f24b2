"""Counting words. Run as a script with a regular expression, it reads slices of text and prints their counts, in JSON.

Nothing of glassgpt is imported here, so that the process starts in a few hundredths of a second.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable

import regex


def count_slices(slices: Iterable[str], expression: str) -> Counter[str]:
    """How often each word, a match of the expression, occurs in slices that are split one by one."""
    words = regex.compile(expression).findall
    counts: Counter[str] = Counter()
    for part in slices:
        counts.update(words(part))
    return counts


if __name__ == "__main__":
    print(json.dumps(count_slices(json.load(sys.stdin), sys.argv[1])))
