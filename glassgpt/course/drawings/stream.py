"""The drawings about what is inside a trained model: the sum on its residual stream, and a patched activation."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import Drawing, arrow, frame, ink, label, line, number, token

# What the parts of the model of section 8 add to the logit of "e" minus that of "a" after "that th", and how long the
# vector of the stream is after them. docs/course/stream.md measures both.
SHARES = (
    ("token embedding", -0.48), ("position embedding", 0.43),
    ("attention 0", -0.04), ("MLP 0", -0.27),
    ("attention 1", 0.37), ("MLP 1", 0.41),
    ("attention 2", 0.30), ("MLP 2", 0.80),
)  # fmt: skip
BIAS = -0.14
LENGTHS = (6.1, 6.4, 6.9, 10.6, 13.5, 21.7, 26.5, 41.4)


def stream() -> Drawing:
    """The stream from top to bottom, and beside it the share of each part in one prediction."""
    x, names, zero, unit, step, top = 26.0, 66.0, 262.0, 58.0, 34.0, 78.0
    parts = [label(8, 14, "after", anchor="start")]
    parts += [token(66 + 25 * i, 15, letter, size=23) for i, letter in enumerate("that·th")]
    parts += [
        label(244, 15, "why e and not a?", anchor="start", bold=True),
        label(8, 48, "stream", anchor="start", colour="quiet"),
        label(zero - 8, 48, "← for a", anchor="end", colour="quiet"),
        label(zero + 8, 48, "for e →", anchor="start", colour="quiet"),
        line((zero, 60), (zero, top + 9.3 * step), colour="line", thick=1),
    ]
    total = 0.0
    for i, (name, share) in enumerate((*SHARES, ("bias of the head", BIAS))):
        y = top + i * step
        if i < len(SHARES):
            parts.append(line((x, y), (x, y + step), thick=0.6 * LENGTHS[i]))
            parts.append(arrow((names - 4, y), (x + 0.3 * LENGTHS[i], y), thick=2))
        parts.append(label(names, y, name, anchor="start"))
        begin, end = sorted((total, total + share))
        tone = "added" if share > 0 else "removed"
        parts.append(
            f'<rect x="{zero + unit * begin:.1f}" y="{y - 9:g}" width="{unit * (end - begin):.1f}" height="18" '
            f'fill="{ink(tone)}" fill-opacity="0.75"/>'
        )
        parts.append(label(zero + unit * max(0.0, end) + 6, y, signed(share), anchor="start", colour="quiet"))
        total += share
        parts.append(line((zero + unit * total, y + 9), (zero + unit * total, y + step - 9), colour="quiet", thick=1))
    y = top + 9 * step
    parts += [
        frame(zero, y - 9, unit * total, 18, colour="text", fill="text", round=0),
        label(names, y, "sum: e is 4 times as likely", anchor="start", bold=True),
        label(zero + unit * total + 6, y, signed(total), anchor="start", bold=True),
    ]
    return Drawing(
        "The score of a prediction is a sum",
        'A trained model of section 8 reads "that th". Its stream runs from top to bottom and gets wider. Beside it '
        'stands what each part adds to the score of "e" over "a": '
        + ", ".join(f"{name} {signed(share)}" for name, share in (*SHARES, ("bias of the head", BIAS)))
        + f". The sum is {signed(total)}.",
        400,
        parts,
    )


def signed(value: float) -> str:
    """A number with its sign."""
    return f"{'+' if value > 0 else ''}{number(value, 2)}"


# How probable "g" is after "hunter hun", in percent, when the stream at one place is replaced by that of "hunger hun".
# A row for each layer, a column for each position. docs/course/intermediate.md measures it.
PATCHED = (
    ("embedding", (1, 1, 1, 75, 1, 1, 1, 1, 1, 1)),
    ("after block 0", (1, 1, 1, 76, 1, 1, 1, 1, 1, 1)),
    ("after block 1", (1, 1, 1, 1, 1, 1, 1, 1, 1, 75)),
)


def intermediate() -> Drawing:
    """Where in the model the letter is that decides: a patch at each place, and what the model then predicts."""
    left, cell, top, step = 104.0, 28.0, 150.0, 62.0
    centres = [left + cell * (i + 0.5) for i in range(10)]
    parts = [
        label(8, 18, "it reads", anchor="start"),
        label(8, 66, "taken from", anchor="start", colour="quiet"),
        arrow((centres[3], 81), (centres[3], top - 21), thick=2),
        label(centres[3] + 10, 106, "one vector at a time:", anchor="start", colour="quiet"),
        label(centres[3] + 10, 123, "how probable is g then?", anchor="start", bold=True),
    ]
    for i, (own, other) in enumerate(zip("hunter·hun", "hunger·hun", strict=True)):
        marked = own != other
        colour = "accent" if marked else "line"
        parts.append(token(centres[i], 18, own, size=24))
        parts.append(token(centres[i], 66, other, size=24, colour=colour, thick=2.5 if marked else 1.5))
    for row, (name, values) in enumerate(PATCHED):
        y = top + row * step
        parts.append(label(8, y, name, anchor="start"))
        for x, value in zip(centres, values, strict=True):
            strong = value > 10
            parts.append(
                frame(x - cell / 2, y - 15, cell, 30, colour="line", fill="accent", opacity=0.6 * value / 100, round=0)
            )
            parts.append(label(x, y, str(value), bold=strong, colour="text" if strong else "quiet"))
    y = top + step
    parts += [
        arrow((centres[3], top + 17), (centres[3], y - 17), colour="accent", thick=2.5),
        arrow((centres[3] + 4, y + 17), (centres[9] - 6, y + step - 17), colour="accent", thick=2.5),
        label(centres[4] + 6, y - 31, "block 0 leaves it there", anchor="start", colour="quiet"),
        label(left, y + 36, "block 1 carries it", anchor="start", colour="quiet"),
        label(left, top + 2 * step + 32, "percent of g; 1 without a patch", anchor="start", colour="quiet"),
    ]
    return Drawing(
        "Which intermediate output holds the letter?",
        'A model reads "hunter hun" and expects "t". At one place at a time, its stream is replaced by that of "hunger '
        'hun". A grid shows how probable "g" is then. At the embedding and after block 0 it is 75% and 76% if the '
        "letter that differs is replaced. After block 1 it is 75% if the last position is replaced. Everywhere else it "
        "is 1%.",
        322,
        parts,
    )
