"""The split patterns, and safe places to cut a text: those where no pattern splits it differently."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from glassgpt.errors import unknown

# The pattern of OpenAI's o200k_base.
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Text is first split into words, and merges never cross word boundaries. These are OpenAI's patterns as tiktoken
# writes them: possessive quantifiers (`++`) match the same text as the published patterns, without backtracking.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    # Of Llama 3 and others: like cl100k, but whitespace at the end of a text is split like other whitespace.
    "llama3": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s*[\r\n]|\s+(?!\S)|\s+"
    ),
    # Of Qwen 2 and 3: like llama3, but each digit is a word.
    "qwen": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s*[\r\n]|\s+(?!\S)|\s+"
    ),
    # Of o200k_base and o200k_harmony, the vocabularies of GPT-4o and GPT-oss: a word begins at a capital.
    "o200k": O200K,
}

# Safe cuts: places where a text can be cut, and its parts have the words of the whole text. A cut is safe under two
# conditions. No word extends across it. And the words before it stay the same when the text ends there. No pattern
# looks behind, so the words after a cut depend only on the text after it.
#
# BEFORE_BLANK, gpt2: after a character that is not whitespace, before whitespace. In each alternative, whitespace comes
#   first or not at all, so no word extends across the cut. Only `\s++$` and `\s+(?!\S)` look ahead, past whitespace,
#   and the whitespace before the cut is followed by other text before the cut.
# BEFORE_SPACE, all others: the same, but not before \r or \n, which end words of punctuation (`[\r\n]*`).
# AFTER_NEWLINE, the same: after \r or \n, before a character that is not whitespace. Where a word contains \r
#   or \n, only more of these follow (in o200k also "/"), so no word extends across the cut. The whitespace that ends
#   with this \r or \n is one word, by `\s*[\r\n]`; at the end of a text perhaps by `\s++$`, with the same result.
#   gpt2 has no such cut: there, "\n\n" is one word at the end of a text, and two before a letter.
# AFTER_MARK, the same: after a punctuation mark and one newline, before whitespace that is no newline. The
#   newline ends the word of the mark. This cuts indented lines of code that have no letters.
# AFTER_LETTER, all: after a letter or digit, before a newline or a punctuation mark. After a letter or digit, only
#   another one or an apostrophe continues a word. This cuts text without whitespace, such as Chinese or compact JSON.
#
# The classes below mean the same in all versions of Unicode: Python, `regex` and tiktoken do not know the same letters.
_BLANK = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # \s; in Python, it has \x1c to \x1f too
_SPACE = _BLANK.replace(r"\t-\r", r"\t\v\f")
_MARK = "!-/:-@\\[-`{-~，。、；：！？）」』】》”…"
_LETTER = (  # Latin, Greek, Cyrillic, Hebrew, Arabic, Hindi, Thai, Japanese, Chinese, Korean
    r"A-Za-z0-9\xc0-\xd6\xd8-\xf6\xf8-\u01f5\u0391-\u03a1\u03a3-\u03c9\u0410-\u044f\u05d0-\u05ea\u0621-\u063a\u0641-\u064a"
    r"\u0905-\u0939\u0e01-\u0e30\u3041-\u3094\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
)
_BEFORE_BLANK = rf"(?<=[^{_BLANK}])(?=[{_BLANK}])"
_BEFORE_SPACE = rf"(?<=[^{_BLANK}])(?=[{_SPACE}])"
_AFTER_NEWLINE = rf"(?<=[\r\n])(?=[^{_BLANK}])"
_AFTER_NEWLINE_NO_SLASH = rf"(?<=[\r\n])(?=[^{_BLANK}/])"
_AFTER_MARK = rf"(?:(?<=[{_MARK}][\r\n])|(?<=[{_MARK}]\r\n))(?=[{_SPACE}])"
_AFTER_LETTER = rf"(?<=[{_LETTER}])(?=[\r\n{_MARK.replace('!-/', '!-&(-/')}])"
_SEEN_BEFORE = 3  # characters before a cut that make it safe, at most
SAFE_CUTS = {
    PATTERNS["gpt2"]: re.compile(f"{_BEFORE_BLANK}|{_AFTER_LETTER}"),
    PATTERNS["cl100k"]: re.compile(f"{_BEFORE_SPACE}|{_AFTER_NEWLINE}|{_AFTER_MARK}|{_AFTER_LETTER}"),
    PATTERNS["llama3"]: re.compile(f"{_BEFORE_SPACE}|{_AFTER_NEWLINE}|{_AFTER_MARK}|{_AFTER_LETTER}"),
    PATTERNS["qwen"]: re.compile(f"{_BEFORE_SPACE}|{_AFTER_NEWLINE}|{_AFTER_MARK}|{_AFTER_LETTER}"),
    O200K: re.compile(f"{_BEFORE_SPACE}|{_AFTER_NEWLINE_NO_SLASH}|{_AFTER_MARK}|{_AFTER_LETTER}"),
}
# Those of them that are safe in a text with tokens without whitespace, such as "<think>", each of which begins a new
# text: AFTER_LETTER could cut through one, and AFTER_MARK could see the mark that ends one.
SAFE_CUTS_BESIDE_TOKENS = {
    PATTERNS["gpt2"]: re.compile(_BEFORE_BLANK),
    **{PATTERNS[name]: re.compile(f"{_BEFORE_SPACE}|{_AFTER_NEWLINE}") for name in ("cl100k", "llama3", "qwen")},
    O200K: re.compile(f"{_BEFORE_SPACE}|{_AFTER_NEWLINE_NO_SLASH}"),
}
ANYWHERE = re.compile(r"(?=[\s\S])")  # the safe cut of tokenizers in which each character is a word

# tiktoken's regex engine overflows its stack, and panics, on a run of 999,023 whitespace characters. Runs are cut to
# less than twice this length.
BLANK_STRIDE = 400_000


def split_pattern(name: str) -> str:
    """The split pattern with that name. Raises UserError for an unknown one."""
    if name not in PATTERNS:
        raise unknown("split pattern", name, PATTERNS)
    return PATTERNS[name]


def safe_cut(expression: str) -> re.Pattern[str] | None:
    """Matches, with length 0, where a text can be cut without changing its words.

    None for an expression that is none of the known patterns: it may have words of any form.
    """
    return SAFE_CUTS.get(expression)


def safe_slices(text: str, size: int, cut: re.Pattern[str] | None, whole: Iterable[str] = ()) -> Iterator[str]:
    """`text` in slices of about `size` characters, cut only where `cut` matches; None: in one piece.

    A slice is longer if there is no such place nearby. No string of `whole` (special tokens) is cut in two, nor a
    prefix of one at the end of `text`.
    """
    if cut is None:
        yield text
        return
    # Distances from the start of a name to a cut in it, or to one that its last characters make seem safe.
    inside = [(name, match.start()) for name in whole for match in cut.finditer(name) if match.start() > 0]
    inside += [(name, len(name) + distance) for name in whole for distance in range(1, _SEEN_BEFORE)]
    start, search = 0, size
    while match := cut.search(text, search):
        place = match.start()
        begins = ((name, place - before) for name, before in inside if before <= place)
        if any(name.startswith(text[begin : begin + len(name)]) for name, begin in begins):
            search = place + 1
            continue
        yield text[start:place]
        start, search = place, place + size
    yield text[start:]


def safe_stream(
    texts: Iterable[str], size: int, cut: re.Pattern[str] | None, whole: Iterable[str] = ()
) -> Iterator[str]:
    """The joined `texts` in slices like those of `safe_slices`, with little more than one slice in memory."""
    whole = list(whole)
    pending: list[str] = []
    held, enough = 0, 2 * size
    for text in texts:
        pending.append(text)
        held += len(text)
        if held >= enough and cut is not None:
            *slices, rest = safe_slices("".join(pending), size, cut, whole)
            yield from slices
            # Wait until the rest has doubled: a long text without a safe place is searched a few times, not per line.
            pending, held, enough = [rest], len(rest), 2 * max(size, len(rest))
    yield "".join(pending)


def split_long_blanks(text: str) -> list[str]:
    """`text`, cut inside runs of whitespace that are so long that tiktoken would panic. Other text is not cut."""
    starts = range(BLANK_STRIDE, len(text) - BLANK_STRIDE + 1, BLANK_STRIDE)
    cuts = [start for start in starts if text[start : start + BLANK_STRIDE].isspace()]
    return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)] if cuts else [text]
