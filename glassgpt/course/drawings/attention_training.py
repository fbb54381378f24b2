"""The drawings about how attention is trained: which predictions count, and which of its numbers are weights."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import Drawing, arrow, bend, cells, frame, label, line, operation, token


def last_token() -> Drawing:
    """Each position gathers and predicts; training uses all predictions, writing the last one."""
    inputs, targets = "party", "arty·"
    columns = [108.0 + 62 * i for i in range(len(inputs))]
    first, last = columns[0], columns[-1]
    parts = []
    for y, name in ((24, "input"), (120, "gathers"), (137, "(count)"), (196, "predicts"), (236, "loss")):
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


def where_qkv() -> Drawing:
    """The matrices are trained; queries, keys and values are computed from each text."""
    x = ((1, 0), (0, 1), (1, 1))  # three tokens, two channels
    rows = (
        ("Q", "query", 78.0, ((2, 1), (0, -1))),
        ("K", "key", 174.0, ((1, 0), (1, 2))),
        ("V", "value", 270.0, ((-1, 1), (0, 2))),
    )
    middle, cell = 174.0, 22.0
    parts = [
        label(34, 126, "X", bold=True, size=15),
        *(cells(12, middle + cell * (i - 1), vector, width=cell, height=cell, digits=0) for i, vector in enumerate(x)),
        label(34, 222, "text", colour="quiet"),
        label(134, 14, "weights", bold=True),
        label(248, 14, "activations", bold=True),
    ]
    for name, colour, y, weights in rows:
        product = [[sum(a * w[j] for a, w in zip(vector, weights, strict=True)) for j in range(2)] for vector in x]
        parts += [
            arrow((60, middle + 0.12 * (y - middle)), (106, y - 6)),
            *(
                cells(112, y + cell * (i - 0.5), row, width=cell, height=cell, digits=0)
                for i, row in enumerate(weights)
            ),
            label(130, y - 36, "W", bold=True, size=15),
            label(143, y - 32, name, bold=True),
            arrow((162, y - 7), (220, y - 7)),
            arrow((220, y + 9), (162, y + 9), colour="loss-high", thick=2.5),
            *(
                cells(226, y + cell * (i - 1), row, width=cell, height=cell, colour=colour, digits=0)
                for i, row in enumerate(product)
            ),
            label(248, y - 45, name, bold=True, size=15, colour=colour),
            arrow((276, y - 8), (316, middle + 0.4 * (y - middle) - 8)),
            arrow((316, middle + 0.4 * (y - middle) + 8), (276, y + 8), colour="loss-high", thick=2.5),
        ]
    parts += [
        operation(356, middle, 76, "attention", colour="attention", height=110),
        arrow((350, 231), (350, 261)),
        arrow((364, 261), (364, 231), colour="loss-high", thick=2.5),
        frame(330, 263, 54, 28, fill="raised", round=6),
        label(357, 277, "loss"),
        label(134, 330, "in the file", colour="quiet"),
        label(134, 348, "every step", colour="quiet"),
        label(134, 366, "changes them", colour="quiet"),
        label(248, 330, "in no file", colour="quiet"),
        label(248, 348, "new for", colour="quiet"),
        label(248, 366, "every text", colour="quiet"),
        label(357, 330, "gradient", colour="text"),
        arrow((392, 348), (322, 348), colour="loss-high", thick=2.5),
    ]
    return Drawing(
        "The matrices are trained, and queries, keys and values are computed",
        "A text of three tokens, X, is multiplied by three matrices, the weights. The products are the queries Q, the "
        "keys K and the values V, which are activations: they are in no file and new for every text. Attention and "
        "the loss follow. Thick arrows show the gradient. It goes from the loss back through Q, K and V to the "
        "matrices, which every step changes.",
        380,
        parts,
    )
