"""The drawings of sections 4 and 5: a query meets keys, and several heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

from glassgpt.course.drawings.canvas import (
    Drawing,
    arrow,
    bend,
    cells,
    frame,
    ink,
    label,
    line,
    number,
    operation,
    token,
    weight_map,
)


def head() -> Drawing:
    """The whole arithmetic of one query, with true numbers."""
    letters = "cat·s"
    query = (2, 1)
    keys = ((-1, 0), (2, 0), (-1, 1), (0, 2), (-1, 0))
    values = ((1, -1), (2, 1), (-2, 0), (0, 2), (1, 1))
    scores = [sum(q * k for q, k in zip(query, key, strict=True)) for key in keys]
    weights = softmax([score / math.sqrt(len(query)) for score in scores])
    out = [sum(w * value[i] for w, value in zip(weights, values, strict=True)) for i in range(2)]
    columns = [104.0 + 66 * i for i in range(len(letters))]
    last = columns[-1]
    parts = [label(8, 66, "query", anchor="start", bold=True, colour="query")]
    parts.append(label(8, 84, "what do I look for?", anchor="start", colour="quiet"))
    for y, name, colour in ((148, "key", "key"), (186, "q · k", "text"), (354, "value", "value")):
        parts.append(label(8, y, name, anchor="start", bold=True, colour=colour))
    parts.append(label(8, 252, "weight", anchor="start", bold=True, colour="attention"))
    parts.append(label(8, 270, "softmax of", anchor="start", colour="quiet"))
    parts.append(label(8, 288, "q · k / √D", anchor="start", colour="quiet"))
    bottom, room = 312.0, 74.0
    for i, (x, letter) in enumerate(zip(columns, letters, strict=True)):
        asks = i == len(letters) - 1
        parts += [
            token(x, 24, letter, colour="query" if asks else "line", thick=2.5 if asks else 1.5),
            bend(last, 88, x, 134, colour="query", opacity=0.75),
            cells(x - 26, 148, keys[i], colour="key", digits=0),
            label(x, 186, number(scores[i], 0), size=15),
            f'<rect x="{x - 15:g}" y="{bottom - room * weights[i]:.1f}" width="30" '
            f'height="{max(1, room * weights[i]):.1f}" fill="{ink("attention")}"/>',
            label(x, bottom - room * weights[i] - 12, f"{weights[i]:.0%}"),
            cells(x - 26, 354, values[i], colour="value", digits=0),
            bend(x, 368, 236, 410, colour="attention", thick=1 + 9 * weights[i], opacity=0.6),
        ]
    parts += [
        cells(last - 26, 75, query, colour="query", digits=0),
        arrow((last, 40), (last, 60), colour="query"),
        cells(192, 424, out, colour="text", width=44, digits=1),
        label(290, 424, "Σ weight · value", anchor="start"),
    ]
    return Drawing(
        "A query meets the keys, and the weights choose the values",
        "The last token sends its query (2, 1) to the keys of all tokens so far. The dot products are "
        f"{', '.join(number(score, 0) for score in scores)}. Softmax makes weights of them: "
        f"{', '.join(f'{weight:.0%}' for weight in weights)}. The output is the sum of the values, each times its "
        "weight.",
        446,
        parts,
    )


def multihead() -> Drawing:
    """Four small maps side by side, put together again."""
    size, cell, gap = 5, 15.0, 24.0
    kinds = {
        "one before": lambda row, column: 3.0 * (column == row - 1),
        "itself": lambda row, column: 2.0 * (column == row),
        "first": lambda row, column: 2.5 * (column == 0),
        "vowels": lambda row, column: 2.5 * (column in (1, 3)),
    }
    outputs = ((1.4, -0.6), (-0.9, 1.7), (0.5, 1.1), (-1.6, -0.3))
    joined = [value for output in outputs for value in output]
    mixed = [
        sum(value * math.sin(1.7 * (row + 1) * (column + 2)) for column, value in enumerate(joined)) / 2
        for row in range(len(joined))
    ]
    width = size * cell
    start = (400 - 4 * width - 3 * gap) / 2
    parts = []
    for i, ((name, likes), output) in enumerate(zip(kinds.items(), outputs, strict=True)):
        x = start + i * (width + gap)
        weights: list[list[float | None]] = []
        for row in range(size):
            heard = softmax([likes(row, column) for column in range(row + 1)])
            weights.append(heard + [None] * (size - row - 1))
        centre = x + width / 2
        parts += [
            label(centre, 14, f"head {i}", bold=True, colour="attention"),
            label(centre, 32, name, colour="quiet"),
            frame(x, 46, width, width, round=2),
            weight_map(x, 46, weights, cell),
            arrow((centre, 126), (centre, 150), colour="attention"),
            cells(centre - 24, 164, output, width=24, height=22, colour="value"),
            bend(centre, 176, 200 + 52 * (i - 1.5), 224, colour="value"),
        ]
    parts += [
        label(8, 212, "D channels", anchor="start", colour="quiet"),
        label(8, 229, "each", anchor="start", colour="quiet"),
        cells(96, 236, joined, height=22, colour="value"),
        label(200, 262, "side by side: C = H · D channels again", colour="quiet"),
        arrow((200, 274), (200, 294)),
        operation(200, 311, 208, "projection: mixes the heads"),
        arrow((200, 327), (200, 348)),
        cells(96, 361, mixed, height=22),
    ]
    return Drawing(
        "Several heads look at several things at once",
        "Four small attention maps side by side, each with its own pattern: the token before, the token itself, the "
        "first token, vowels. Their outputs are put side by side, and a projection mixes them.",
        380,
        parts,
    )


def scaling() -> Drawing:
    """The weights of the same keys for wider and wider heads, with and without the division by √D."""
    scores = (0.4, -1.3, 1.6, 0.1, -0.7, 1.1, -1.2, 0.0)  # of variance 1, as if D were 1
    sides = (("scores = q · k", 92.0, False), ("scores = q · k / √D", 252.0, True))
    bar, most = 16.0, 76.0
    parts = []
    for title, left, scaled in sides:
        parts.append(label(left + 4 * bar, 16, title, bold=True))
        for row, D in enumerate((4, 16, 64)):
            floor = 118.0 + 108 * row
            weights = softmax([score * (1 if scaled else math.sqrt(D)) for score in scores])
            parts.append(line((left - 4, floor), (left + 8 * bar + 4, floor), colour="line"))
            for i, weight in enumerate(weights):
                height = max(1.0, most * weight)
                parts.append(
                    frame(left + i * bar + 2, floor - height, bar - 4, height, colour="attention", fill="attention",
                          opacity=0.75, round=1)
                )  # fmt: skip
            largest = max(range(len(weights)), key=weights.__getitem__)
            at = left + (largest + 0.5) * bar
            parts.append(label(at, floor - most * weights[largest] - 11, f"{100 * weights[largest]:.0f}%", bold=True))
            if not scaled:
                parts.append(label(8, floor - 40, f"D = {D}", anchor="start", bold=True))
    parts += [
        label(156, 362, "one key takes all,", colour="quiet"),
        label(156, 380, "before anything is learned", colour="quiet"),
        label(316, 362, "the same weights", colour="quiet"),
        label(316, 380, "for every D", colour="quiet"),
    ]
    return Drawing(
        "Without the division, the weights of a wide head go to a single key",
        "The weights of eight keys as bars, for heads of 4, 16 and 64 channels. With scores that are not divided, the "
        "largest weight grows with the number of channels until one key has nearly all. Divided by the root of D, the "
        "weights are the same for every width.",
        398,
        parts,
    )


def softmax(scores: Sequence[float]) -> list[float]:
    """Weights that sum to 1."""
    shares = [math.exp(score) for score in scores]
    return [share / sum(shares) for share in shares]
