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
