"""The drawing of the page on a longer window."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import Drawing, frame, ink, label, line

CHARACTERS = 256  # of a batch
UNIT = 4.0  # of a character in a batch


def longer_window() -> Drawing:
    """The same characters in short rows and in long ones, and the share of each in a mean of the row."""
    parts = [label(200, 14, f"the same {CHARACTERS} characters in a step", bold=True, size=15)]
    for left, window in ((20.0, 8), (124.0, 64)):
        rows = CHARACTERS // window
        parts.append(label(left, 42, f"{rows} rows of {window}", anchor="start"))
        for row in range(rows):
            y = 56 + row * UNIT
            colour, strength = ("accent", 0.9) if row == 0 else ("stream", 0.25)
            parts.append(
                f'<rect x="{left:g}" y="{y:g}" width="{window * UNIT:g}" height="{UNIT - 1:g}" fill="{ink(colour)}" '
                f'fill-opacity="{strength:g}"/>'
            )
    parts += [
        label(200, 214, "how a mean of a row shares out its weight", bold=True, size=15),
    ]
    left, width = 20.0, 360.0
    for y, window in ((264.0, 8), (324.0, 64)):
        own = width / window
        parts += [
            label(left, y - 26, f"window {window}", anchor="start"),
            label(left + width, y - 26, f"the last character: {1 / window:.1%}", anchor="end"),
            frame(left, y - 12, width, 24, colour="quiet", fill="raised", round=0),
            f'<rect x="{left + width - own:.2f}" y="{y - 12:g}" width="{own:.2f}" height="24" fill="{ink("accent")}"/>',
        ]
        parts += [
            line((left + i * own, y - 12), (left + i * own, y + 12), colour="quiet", thick=0.8)
            for i in range(1, window)
        ]
    parts.append(label(200, 358, "The last character says most about the next one.", colour="quiet"))
    return Drawing(
        "The same text in short rows and in long rows",
        "256 characters are 32 rows of 8, or 4 rows of 64. Below, a bar is divided into equal parts: the weights of a "
        "mean over a row. With a window of 8 the last character has 12.5% of the weight, with 64 it has 1.6%.",
        374,
        parts,
    )
