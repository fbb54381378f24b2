"""Where text may be cut: the split patterns, and places that no pattern splits differently."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from glassgpt.errors import unknown

# Text is first split into words, and no merge crosses from one word to the next. These are OpenAI's patterns as
# tiktoken writes them: possessive quantifiers (`++`) match the same as the published ones, without backtracking.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}

# A letter or digit ends its word where whitespace follows. No pattern looks behind, so text cut before that
# whitespace splits into the same words as the whole.
SAFE_CUT = re.compile(r"(?<=[^\W_])\s")

# tiktoken's regex engine overflows its stack, and panics, in a run of 999,023 whitespace characters. Runs are kept
# under twice this length.
BLANK_STRIDE = 400_000


def split_pattern(name: str) -> str:
    """The split pattern with that name. Raises UserError for an unknown one."""
    if name not in PATTERNS:
        raise unknown("split pattern", name, PATTERNS)
    return PATTERNS[name]


def safe_slices(text: str, size: int, whole: Iterable[str] = ()) -> Iterator[str]:
    """`text` in slices of about `size` characters, cut only where the split patterns do not notice.

    A slice is longer where no such place is near. No text of `whole` (special tokens) is cut in two, nor what could
    become one if more text followed.
    """
    inside = [(name, match.start()) for name in whole for match in SAFE_CUT.finditer(name)]
    start, search = 0, size
    while match := SAFE_CUT.search(text, search):
        cut = match.start()
        begins = ((name, cut - before) for name, before in inside if before <= cut)
        if any(name.startswith(text[begin : begin + len(name)]) for name, begin in begins):
            search = cut + 1
            continue
        yield text[start:cut]
        start, search = cut, cut + size
    yield text[start:]


def safe_stream(texts: Iterable[str], size: int, whole: Iterable[str] = ()) -> Iterator[str]:
    """The joined `texts` in slices as of `safe_slices`, holding little more than one slice at a time."""
    whole = list(whole)
    pending: list[str] = []
    held, enough = 0, 2 * size
    for text in texts:
        pending.append(text)
        held += len(text)
        if held >= enough:
            *slices, rest = safe_slices("".join(pending), size, whole)
            yield from slices
            # Twice what is left: a long text without a place to cut is searched a few times, not once a line.
            pending, held, enough = [rest], len(rest), 2 * max(size, len(rest))
    yield "".join(pending)


def split_long_blanks(text: str) -> list[str]:
    """`text` cut within runs of whitespace so long that tiktoken would panic; other text is left whole."""
    starts = range(BLANK_STRIDE, len(text) - BLANK_STRIDE + 1, BLANK_STRIDE)
    cuts = [start for start in starts if text[start : start + BLANK_STRIDE].isspace()]
    return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)] if cuts else [text]
