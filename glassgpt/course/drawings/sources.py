"""The drawing of the page on cross-attention: where queries, keys and values come from, and what the mask hides."""

from __future__ import annotations

from collections.abc import Sequence

from glassgpt.course.drawings.canvas import Drawing, arrow, label, weight_map

CELL = 24.0


def cross_attention() -> Drawing:
    """An encoder, a decoder and the cross-attention between them, on a word that is written backwards."""
    word, written = "word", "▸dro"
    size, places = len(word), range(len(word))
    everything: list[list[float | None]] = [[0.4 for _ in places] for _ in places]
    past: list[list[float | None]] = [[0.4 if key <= query else None for key in places] for query in places]
    found: list[list[float | None]] = [[1.0 if key + query == size - 1 else 0.08 for key in places] for query in places]
    width = size * CELL
    left, right, middle, top, bottom = 58.0, 260.0, 152.0, 70.0, 262.0
    encoder, decoder, cross = left + width / 2, right + width / 2, middle + width / 2
    under, turn = top + width + 6, 226.0
    parts = [
        *titled(encoder, "encoder: reads", "self-attention, no mask"),
        *titled(decoder, "decoder: writes", "self-attention, mask"),
        *keys(left, top, word),
        *queries(left - 12, top, word),
        weight_map(left, top, everything, CELL),
        *keys(right, top, written),
        *queries(right - 12, top, written),
        weight_map(right, top, past, CELL),
        arrow((encoder, under), (encoder, turn), (cross, turn), (cross, bottom - 20), colour="key", thick=2),
        label(8, 194, "keys", anchor="start", bold=True, colour="key"),
        label(8, 212, "and values", anchor="start", bold=True, colour="value"),
        arrow(
            (decoder, under), (decoder, bottom + width / 2), (middle + width + 24, bottom + width / 2),
            colour="query", thick=2,
        ),
        label(decoder + 10, 236, "queries", anchor="start", bold=True, colour="query"),
        *keys(middle, bottom, word),
        *queries(middle + width + 12, bottom, written),
        weight_map(middle, bottom, found, CELL),
        label(cross, bottom + width + 18, "cross-attention, no mask", bold=True, colour="attention"),
    ]  # fmt: skip
    return Drawing(
        "Self-attention and cross-attention differ in where keys and values come from",
        "Three maps of weights, with a row for each query and a column for each key. The encoder reads the letters of "
        "'word'; each hears all others. The decoder writes 'drow', beginning at a start sign; each position hears only "
        "itself and those before it, a triangle. In the cross-attention, the queries come from the decoder, and the "
        "keys and values from the encoder. Its largest weights are on the anti-diagonal.",
        bottom + width + 32,
        parts,
    )


def titled(x: float, name: str, what: str) -> Sequence[str]:
    """The name of a map, and which attention it is."""
    return label(x, 14, name, bold=True), label(x, 33, what, colour="quiet")


def queries(x: float, top: float, letters: str) -> Sequence[str]:
    """The letters beside the rows of a map."""
    return [
        label(x, top + CELL * (place + 0.5), letter, mono=True, colour="query") for place, letter in enumerate(letters)
    ]


def keys(left: float, top: float, letters: str) -> Sequence[str]:
    """The letters above the columns of a map."""
    return [
        label(left + CELL * (place + 0.5), top - 10, letter, mono=True, colour="key")
        for place, letter in enumerate(letters)
    ]
