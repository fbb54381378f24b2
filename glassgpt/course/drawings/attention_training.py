"""The drawings about how attention is trained: which predictions count, and which of its numbers are weights."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import Drawing, arrow, bend, frame, label, line, token


def last_token() -> Drawing:
    """Each position gathers and predicts; training uses all predictions, writing the last one."""
    inputs, targets = "party", "arty·"
    columns = [108.0 + 62 * i for i in range(len(inputs))]
    first, last = columns[0], columns[-1]
    parts = []
    for y, name in ((24, "input"), (120, "gathers"), (137, "from"), (196, "predicts"), (236, "loss")):
        parts.append(label(8, y, name, anchor="start", bold=True))
    for t, x in enumerate(columns):
        parts += [bend(columns[s], 40, x, 114, colour="attention", thick=1.8, opacity=0.7) for s in range(t + 1)]
    for t, x in enumerate(columns):
        parts += [
            token(x, 24, inputs[t]),
            frame(x - 15, 114, 30, 28, colour="attention", fill="attention", opacity=0.25, thick=1.5, round=6),
            label(x, 128, str(t + 1)),
            arrow((x, 143), (x, 179)),
            token(x, 196, targets[t], colour="stream"),
            label(x, 236, f"L{'₀₁₂₃₄'[t]}", size=16),
        ]
    parts += [
        line((first - 18, 252), (first - 18, 260), (last + 18, 260), (last + 18, 252), colour="text"),
        label((first + last) / 2, 276, "training: the loss is the mean of all five", bold=True),
        line((last - 18, 300), (last - 18, 308), (last + 18, 308), (last + 18, 300), colour="text"),
        label(last + 18, 324, "writing: only the last prediction is used", anchor="end", bold=True),
    ]
    return Drawing(
        "Five tokens, five aggregations, five losses",
        "Each of the five characters of “party” gathers from itself and from those before it: the first from 1, the "
        "last from 5. Each predicts the next character: a, r, t, y and a space. In training the loss is the mean of "
        "all five. When the model writes, only the prediction of the last position is used.",
        338,
        parts,
    )
