"""The split patterns, and safe places to cut a text: those where no pattern splits it differently."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from glassgpt.errors import unknown

# Text is first split into words, and merges never cross word boundaries. These are OpenAI's patterns as tiktoken
# writes them: possessive quantifiers (`++`) match the same text as the published patterns, without backtracking.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}

# A word ends at a letter or digit that is followed by whitespace. No pattern looks behind. So a text cut before that
# whitespace splits into the same words as the uncut text.
SAFE_CUT = re.compile(r"(?<=[^\W_])\s")

# tiktoken's regex engine overflows its stack, and panics, on a run of 999,023 whitespace characters. Runs are cut to
# less than twice this length.
BLANK_STRIDE = 400_000


def split_pattern(name: str) -> str:
    """The split pattern with that name. Raises UserError for an unknown one."""
    if name not in PATTERNS:
        raise unknown("split pattern", name, PATTERNS)
    return PATTERNS[name]


def safe_slices(text: str, size: int, whole: Iterable[str] = ()) -> Iterator[str]:
    """`text` in slices of about `size` characters, cut only at safe places: the words stay the same.

    A slice is longer if there is no safe place nearby. No string of `whole` (special tokens) is cut in two, nor a
    prefix of one at the end of `text`.
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
    """The joined `texts` in slices like those of `safe_slices`, with little more than one slice in memory."""
    whole = list(whole)
    pending: list[str] = []
    held, enough = 0, 2 * size
    for text in texts:
        pending.append(text)
        held += len(text)
        if held >= enough:
            *slices, rest = safe_slices("".join(pending), size, whole)
            yield from slices
            # Wait until the rest has doubled: a long text without a safe place is searched a few times, not per line.
            pending, held, enough = [rest], len(rest), 2 * max(size, len(rest))
    yield "".join(pending)


def split_long_blanks(text: str) -> list[str]:
    """`text`, cut inside runs of whitespace that are so long that tiktoken would panic. Other text is not cut."""
    starts = range(BLANK_STRIDE, len(text) - BLANK_STRIDE + 1, BLANK_STRIDE)
    cuts = [start for start in starts if text[start : start + BLANK_STRIDE].isspace()]
    return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)] if cuts else [text]
