"""The drawings of sections 1 to 3: a table, vectors, a mean."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import (
    Drawing,
    arrow,
    bend,
    cells,
    frame,
    label,
    line,
    number,
    operation,
    token,
    weight_map,
)


def bigram() -> Drawing:
    """One row of a table is looked up."""
    letters = "aehqtu"
    shares = [  # how often each letter follows, in per cent
        (0, 2, 1, 0, 55, 6), (38, 12, 2, 2, 24, 1), (34, 52, 0, 0, 4, 3), (0, 1, 0, 0, 0, 97),
        (9, 22, 53, 0, 6, 5), (8, 9, 0, 0, 46, 0),
    ]  # fmt: skip
    chosen, x, y, cell = letters.index("q"), 116.0, 62.0, 30.0
    size = cell * len(letters)
    middle = y + cell * (chosen + 0.5)
    parts = [label(x + size / 2, 16, "next character", colour="quiet")]
    for i, letter in enumerate(letters):
        colour = "text" if letter == "u" else "quiet"
        parts.append(label(x + cell * (i + 0.5), 44, letter, mono=True, size=15, colour=colour, bold=letter == "u"))
        colour = "text" if i == chosen else "quiet"
        parts.append(label(x - 12, y + cell * (i + 0.5), letter, mono=True, size=15, colour=colour, bold=i == chosen))
    for row, of_row in enumerate(shares):
        strength = 1.0 if row == chosen else 0.4
        parts.append(weight_map(x, y + row * cell, [[strength * share / 100 for share in of_row]], cell))
    parts += [
        frame(x, y + chosen * cell, size, cell, colour="accent", fill="none", thick=2.5, round=3),
        token(46, middle, "q", colour="accent"),
        arrow((64, middle), (x - 26, middle), colour="accent"),
        label(46, middle - 46, "the current", colour="quiet"),
        label(46, middle - 30, "character", colour="quiet"),
        arrow((x + size + 4, middle), (338, middle), colour="accent"),
        token(358, middle, "u", colour="accent"),
        label(358, middle - 30, "most likely", colour="quiet"),
        label(358, middle + 30, "97%", bold=True),
        label(200, y + size + 24, "The row of the current character says what comes next."),
        label(200, y + size + 44, "Nothing before it is read.", colour="quiet"),
    ]
    return Drawing(
        "A table with one row for each character",
        "The current character q selects its row. The row holds how likely each character is to come next: u has 97%.",
        y + size + 60,
        parts,
    )


def embedding() -> Drawing:
    """A token's vector plus its position's vector."""
    token_row, position_row = (0.9, -0.4, 0.2, 1.1, -0.8), (-0.3, 0.6, 0.2, 0.4, 0.3)
    total = [a + b for a, b in zip(token_row, position_row, strict=True)]
    head = {
        "a": (-0.6, 0.2, 0.1, -0.7, 0.4), "e": (-0.4, -0.3, 0.9, -0.5, 0.1), "n": (0.3, 0.2, -0.4, 0.5, 0.2),
        "s": (-0.2, 0.8, 0.3, 0.1, 0.9), "t": (0.8, 0.1, -0.2, 0.9, -0.6),
    }  # fmt: skip
    scores = {letter: sum(a * b for a, b in zip(total, weights, strict=True)) for letter, weights in head.items()}
    best = max(scores, key=scores.__getitem__)
    x, width = 120.0, 52.0
    middle = x + 2.5 * width
    parts = []
    for i, letter in enumerate("cat"):
        colour = "accent" if i == 1 else "line"
        parts.append(token(middle + 44 * (i - 1), 24, letter, colour=colour, thick=2.5 if i == 1 else 1.5))
        parts.append(label(middle + 44 * (i - 1), 52, str(i), colour="text" if i == 1 else "quiet", bold=i == 1))
    parts.append(label(middle - 76, 52, "position", colour="quiet", anchor="end"))
    rows = (("token a", "its vector", token_row, 92), ("position 1", "its vector", position_row, 140))
    for name, what, values, y in rows:
        parts.append(label(8, y - 9, name, anchor="start", bold=True))
        parts.append(label(8, y + 9, what, anchor="start", colour="quiet"))
        parts.append(cells(x, y, values, width=width, height=30, digits=1))
    parts += [
        label(x - 14, 140, "+", size=20, bold=True),
        line((x - 22, 168), (x + 5 * width, 168), colour="quiet"),
        label(8, 187, "X", anchor="start", bold=True),
        label(8, 205, "their sum", anchor="start", colour="quiet"),
        label(x - 14, 196, "=", size=20, bold=True),
        cells(x, 196, total, width=width, height=30, digits=1, colour="text"),
        arrow((middle, 214), (middle, 240)),
        operation(middle, 258, 260, "head: X · a vector of each character"),
        arrow((middle, 275), (middle, 298)),
    ]
    for i, (letter, score) in enumerate(scores.items()):
        at = x + (i + 0.5) * width
        strong = letter == best
        parts.append(token(at, 318, letter, colour="accent" if strong else "line", thick=2.5 if strong else 1.5))
        parts.append(label(at, 346, number(score), bold=strong, colour="text" if strong else "quiet"))
    parts.append(label(8, 318, "scores of the", anchor="start", colour="quiet"))
    parts.append(label(8, 336, "next one", anchor="start", colour="quiet"))
    return Drawing(
        "A token is a vector, and so is its position",
        "The vector of the token a and the vector of position 1 are added, number by number. The head multiplies the "
        f"sum with a vector of each character, which gives the scores of the next character: {best} has the highest.",
        362,
        parts,
    )


def averaging() -> Drawing:
    """Equal weights over the past."""
    letters, shares = "the·c", ("1", "½", "⅓", "¼", "⅕")
    x, y, cell = 116.0, 56.0, 40.0
    n = len(letters)
    weights = [[1 / (row + 1) if column <= row else None for column in range(n)] for row in range(n)]
    parts = [
        label(x + n * cell / 2, 12, "is heard with the weight", colour="quiet"),
        frame(x, y, n * cell, n * cell, round=2),
        weight_map(x, y, weights, cell),
    ]
    for i, letter in enumerate(letters):
        parts.append(label(x + cell * (i + 0.5), 38, letter, mono=True, size=16))
        parts.append(label(x - 16, y + cell * (i + 0.5), letter, mono=True, size=16))
        for column in range(i + 1):
            colour = "text" if i else "ground"
            parts.append(label(x + cell * (column + 0.5), y + cell * (i + 0.5), shares[i], size=16, colour=colour))
    parts += [
        label(8, y + cell * 2.3, "each", anchor="start", colour="quiet"),
        label(8, y + cell * 2.7, "position", anchor="start", colour="quiet"),
        label(x + cell * 3.45, y + cell * 0.85, "the future is", colour="quiet"),
        label(x + cell * 3.45, y + cell * 1.25, "masked", colour="quiet"),
        frame(x, y + 4 * cell, n * cell, cell, colour="accent", fill="none", thick=2.5, round=3),
    ]
    vectors = ((1.2, -0.8, 0.5), (-0.6, 1.5, 0.2), (0.4, 0.3, -1.1), (-1.4, 0.2, 0.9), (0.9, 1.3, 0.5))
    mean = [sum(column) / n for column in zip(*vectors, strict=True)]
    top = y + n * cell + 36
    for i, (letter, vector) in enumerate(zip(letters, vectors, strict=True)):
        at = 40 + 80 * i
        parts += [
            token(at, top, letter, size=26),
            cells(at - 27, top + 32, vector, width=18, height=20),
            bend(at, top + 44, 200, top + 92, colour="attention", thick=3, opacity=0.55),
        ]
    parts += [
        cells(173, top + 104, mean, width=18, height=22, colour="text"),
        label(246, top + 104, "the mean of all five", anchor="start"),
    ]
    return Drawing(
        "Every position hears all positions so far equally",
        "A triangle of weights: the first position has the weight 1, the second row ½ and ½, and so on to five times "
        "⅕. Cells of later positions are empty. Below, five vectors meet in their mean with lines of the same width.",
        top + 124,
        parts,
    )
