"""The drawings of the pages on the size of numbers: the first weights, and the norms."""

from __future__ import annotations

import math
import random

from glassgpt.course.drawings.canvas import Drawing, cells, frame, ink, label, line, number, token

CHARACTERS = 65  # of Tiny Shakespeare
CHANNELS = 64  # of the model of the page's experiment
SEED = 89  # of scores whose losses are near those that the experiment measures


def initialisation() -> Drawing:
    """The same random scores at three sizes, as predictions."""
    draw = random.Random(SEED)
    scores = [draw.gauss(0, 1) for _ in range(CHARACTERS)]
    answer = min(range(CHARACTERS), key=lambda i: abs(scores[i]))  # neither lucky nor unlucky
    left, width, room = 24.0, 352.0 / CHARACTERS, 66.0
    parts, losses = [], []
    for i, (std, what) in enumerate(
        ((0.02, "all alike"), (0.2, "a few favourites"), (1.0, "sure of one, for no reason"))
    ):
        shares = [math.exp(std * math.sqrt(CHANNELS) * score) for score in scores]
        shares = [share / sum(shares) for share in shares]
        losses.append(-math.log(shares[answer]))
        bottom = 112.0 + 134 * i
        parts += [
            label(left, bottom - room - 32, f"weights {std:g}", anchor="start", bold=True, size=15),
            label(left, bottom - room - 12, what, anchor="start", colour="quiet"),
            label(376, bottom - room - 32, f"loss {losses[-1]:.1f}", anchor="end", bold=True, size=15),
            label(376, bottom - room - 12, f"highest: {max(shares):.0%}", anchor="end", colour="quiet"),
            line((left, bottom), (376, bottom), colour="quiet", thick=1),
        ]
        for place, share in enumerate(shares):
            height = max(1.5, room * share)
            parts.append(
                f'<rect x="{left + place * width:.1f}" y="{bottom - height:.1f}" width="{width - 1:.1f}" '
                f'height="{height:.1f}" fill="{ink("accent")}"/>'
            )
        x = left + (answer + 0.5) * width
        parts.append(
            f'<polygon points="{x:.1f},{bottom + 3:.1f} {x - 5:.1f},{bottom + 12:.1f} {x + 5:.1f},{bottom + 12:.1f}" '
            f'fill="{ink("loss-high")}"/>'
        )
    parts += [
        label(200, 410, "Each bar is a character; ▲ is the right one."),
        label(200, 430, "A blind guess has the loss ln 65 = 4.2.", colour="quiet"),
    ]
    return Drawing(
        "The same random scores at three sizes",
        "Three predictions of an untrained model over 65 characters. With weights of 0.02 all bars are alike, and the "
        f"loss is {number(losses[0])}. With 0.2 a few are higher, and the loss is {number(losses[1])}. With 1 one bar "
        f"has nearly everything, it is not the right one, and the loss is {number(losses[2])}.",
        446,
        parts,
    )


def normalisation() -> Drawing:
    """Which numbers each norm takes its mean over."""
    draw = random.Random(2)
    texts, channels, cell = ("the·", "king"), 6, 19.0
    values = [[[draw.gauss(0, 1) for _ in range(channels)] for _ in text] for text in texts]
    row, column = 1, 2  # the number that is normed: a channel of the h
    parts = []
    for x, name, over in ((34.0, "layer norm", "one position"), (200.0, "batch norm", "one channel")):
        centre = x + channels * cell / 2
        parts += [label(centre, 14, name, bold=True, size=15), label(centre, 36, over, colour="quiet")]
        for i, text in enumerate(texts):
            top = 62.0 + i * (len(text) * 26 + 18)
            for j, letter in enumerate(text):
                y = top + 13 + j * 26
                chosen = (i, j) == (0, row)
                parts.append(token(x - 16, y, letter, size=23, colour="accent" if chosen else "line"))
                parts.append(cells(x, y, values[i][j], width=cell, height=22, colour="line"))
        y = 62.0 + 13 + row * 26
        if name == "layer norm":
            parts.append(frame(x - 3, y - 14, channels * cell + 6, 28, colour="accent", fill="none", thick=3))
        else:
            parts.append(frame(x + column * cell - 3, 58, cell + 6, 234, colour="accent", fill="none", thick=3))
            for place, what in (
                (75.0, "the past"),
                (101.0, "itself"),
                (140.0, "the future"),
                (236.0, "another"),
                (252.0, "text"),
            ):
                parts.append(label(x + channels * cell + 6, place, what, anchor="start", size=13))
        parts.append(frame(x + column * cell, y - 11, cell, 22, colour="text", fill="none", thick=2.5, round=1))
    parts += [
        label(200, 316, "Mean and variance of the frame norm the marked cell."),
        label(200, 336, "A row of cells: the channels of one character.", colour="quiet"),
    ]
    return Drawing(
        "Over which numbers a norm takes its mean",
        "Two grids of numbers for two texts of four characters with six channels each. Layer norm frames one row: all "
        "channels of one character. Batch norm frames one column: one channel of all characters. Some of these are in "
        "the future, and some in another text.",
        352,
        parts,
    )
