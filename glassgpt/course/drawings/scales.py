"""The drawings of the pages on the size of numbers."""

from __future__ import annotations

import math
import random

from glassgpt.course.drawings.canvas import Drawing, ink, label, line, number

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
