"""The drawing of the page on BPE: a text of bytes becomes tokens, merge by merge."""

from __future__ import annotations

from itertools import pairwise

from glassgpt.course.drawings.canvas import Drawing, frame, label
from glassgpt.tokenizers.bpe import BPETokenizer, apply_merges

TEXT = "the cat sat on the mat"
MERGES = 3  # after them, no pair is there twice


def bpe() -> Drawing:
    """The true merges of a small text. Each row is the text after one more of them."""
    tokenizer = BPETokenizer.train(TEXT, 256 + MERGES)
    words = [word.encode() for word in tokenizer.words(TEXT)]
    parts, sizes, told = [], [], []
    cell, space, left, height = 16.0, 6.0, 9.0, 26.0
    for number in range(MERGES + 1):
        order = {pair: place for place, pair in enumerate(tokenizer.merges[:number])}
        rows = [apply_merges(word, order) for word in words]
        sizes.append(sum(map(len, rows)))
        made = b"".join(tokenizer.merges[number - 1]) if number else None
        top = 30.0 + 82 * number
        name = f"after merge {number}" if number else "before"
        parts.append(label(left, top - 14, name, anchor="start", bold=True))
        parts.append(label(400 - left, top - 14, f"{sizes[-1]} tokens", anchor="end", colour="quiet"))
        x = left
        for row in rows:
            for token in row:
                width = cell * len(token)
                new = token == made
                colour, thick = ("accent", 2.0) if new else ("line", 1.5)
                parts.append(frame(x, top, width, height, colour=colour, fill="raised", thick=thick))
                if new:
                    parts.append(frame(x, top, width, height, colour=colour, fill=colour, opacity=0.18, thick=thick))
                parts.append(
                    label(x + width / 2, top + height / 2, token.decode().replace(" ", "·"), size=14, mono=True)
                )
                x += width
            x += space
        if number < MERGES:
            first, second = tokenizer.merges[number]
            count = sum((first, second) == pair for row in rows for pair in pairwise(row))
            told.append(f"{first.decode()} and {second.decode()}, {count} times")
            words_for = f"most frequent pair: {first.decode()} + {second.decode()}, {count} times"
            parts.append(label(left, top + height + 14, words_for, anchor="start", colour="accent"))
    return Drawing(
        "The most frequent pair becomes a token, again and again",
        f"The text '{TEXT}' begins as {sizes[0]} bytes, in words that keep the space before them. The most frequent "
        f"pairs are merged one after the other: {'; '.join(told)}. {sizes[-1]} tokens are left.",
        30 + 82 * MERGES + height + 10,
        parts,
    )
