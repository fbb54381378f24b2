"""The drawing of the page on what changed since GPT-2: rotary positions, shared keys, a band with a sink, experts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from glassgpt.course.drawings.canvas import Drawing, arrow, frame, ink, label, line, operation, token, weight_map

CELL = 17.0


def since_gpt2() -> Drawing:
    """Four of the changes, one in each quarter."""
    parts = [
        *_rotary(100.0, 10.0),
        *_groups(300.0, 10.0),
        *_band(100.0, 216.0),
        *_experts(300.0, 216.0),
        line((200, 8), (200, 428), colour="line", thick=1),
        line((8, 206), (392, 206), colour="line", thick=1),
    ]
    return Drawing(
        "Four of the changes since GPT-2",
        "Rotary positions: a query and a key are arrows on a circle, turned further at later places; two pairs that "
        "are as far apart in the text have the same angle between them. Grouped queries: eight query heads share two "
        "heads of keys and values. A band with a sink: each row of a map has its last four keys, and a column for the "
        "sink. Experts: a router sends a token to two of eight small MLPs.",
        436,
        parts,
    )


def _rotary(x: float, y: float) -> Sequence[str]:
    """Two pairs of a query and a key, as far apart, on circles."""
    parts = [label(x, y + 6, "rotary positions", bold=True)]
    radius, step = 36.0, 0.42
    for middle, key_at, query_at in ((x - 46, 1, 3), (x + 46, 6, 8)):
        centre = y + 66
        parts.append(f'<circle cx="{middle:g}" cy="{centre:g}" r="{radius:g}" fill="none" stroke="{ink("line")}"/>')
        for place, colour in ((key_at, "key"), (query_at, "query")):
            angle = step * place
            end = (middle + radius * math.cos(angle), centre - radius * math.sin(angle))
            parts.append(arrow((middle, centre), end, colour=colour, thick=2.5))
        parts.append(label(middle, centre + 52, f"places {key_at}, {query_at}", colour="quiet"))
    parts += [
        label(x, y + 142, "a later place turns further;", colour="quiet"),
        label(x, y + 160, "the angle between the two", colour="quiet"),
        label(x, y + 178, "depends on their distance", colour="quiet"),
    ]
    return parts


def _groups(x: float, y: float) -> Sequence[str]:
    """Eight query heads on two key/value heads."""
    parts = [label(x, y + 6, "grouped queries", bold=True), label(x, y + 34, "8 query heads", colour="query")]
    for head in range(8):
        at, own = x + 20 * (head - 3.5), x + 80 * (head // 4 - 0.5)
        parts.append(line((at, y + 62), (own, y + 108), colour="attention", thick=1.5))
        parts.append(frame(at - 7, y + 48, 14, 14, colour="query", fill="query", round=3))
    for group in range(2):
        own = x + 80 * (group - 0.5)
        parts.append(frame(own - 15, y + 108, 14, 14, colour="key", fill="key", round=3))
        parts.append(frame(own + 1, y + 108, 14, 14, colour="value", fill="value", round=3))
    parts += [
        label(x, y + 138, "2 heads of keys and values", colour="quiet"),
        label(x, y + 160, "the KV cache is a quarter", colour="quiet"),
        label(x, y + 178, "as large", colour="quiet"),
    ]
    return parts


def _band(x: float, y: float) -> Sequence[str]:
    """A map with a band of four keys and a column for the sink."""
    size, width, top, left = 7, 4, y + 38, x - 3.5 * CELL + 12
    weights = [[0.55 if query - width < key <= query else None for key in range(size)] for query in range(size)]
    sink: list[list[float | None]] = [[0.3 + 0.1 * (query % 3)] for query in range(size)]
    return [
        label(x, y + 6, "a band, and a sink", bold=True),
        label(left - 21, top - 9, "sink", colour="value"),
        weight_map(left - 21 - CELL / 2, top, sink, CELL, colour="value"),
        frame(left, top, size * CELL, size * CELL, round=1),
        weight_map(left, top, weights, CELL),
        label(left + size * CELL / 2, top - 9, "keys", colour="quiet"),
        label(x, top + size * CELL + 18, "a query sees 4 keys; the", colour="quiet"),
        label(x, top + size * CELL + 36, "sink may take weight too", colour="quiet"),
    ]


def _experts(x: float, y: float) -> Sequence[str]:
    """A router and eight experts, of which two compute."""
    parts = [label(x, y + 6, "experts", bold=True), token(x, y + 38, "k", size=28)]
    parts += [arrow((x, y + 52), (x, y + 64)), operation(x, y + 78, 90, "router", height=26)]
    for expert in range(8):
        at, on = x + 22 * (expert - 3.5), expert in (1, 6)
        if on:
            parts.append(line((x, y + 91), (at, y + 118), thick=2.5))
            parts.append(line((at, y + 138), (x, y + 158), thick=2.5))
        else:
            parts.append(line((x, y + 91), (at, y + 118), thick=0.8, opacity=0.35))
        parts.append(
            frame(
                at - 9, y + 118, 18, 20, colour="stream", fill="stream", opacity=0.85 if on else 0, round=3, thick=1.5
            )
        )
    parts += [
        label(x, y + 175, "2 of 8 MLPs compute;", colour="quiet"),
        label(x, y + 193, "their sum is the answer", colour="quiet"),
    ]
    return parts
