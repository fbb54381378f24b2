"""The drawing of the page on convolution: the same list, mixed by distance and by content."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import Drawing, bend, frame, label

TOKENS = ("f1", "c7", "b4", "d5", "a3", "f?")
COLUMNS = [50.0 + 60 * i for i in range(len(TOKENS))]


def convolution() -> Drawing:
    """A list of pairs, and a question for the first one: out of a kernel's reach, found by a key."""
    weights = (0.9, 0.02, 0.02, 0.02, 0.02, 0.02)
    parts = [label(8, 14, "Convolution: by distance", anchor="start", bold=True)]
    for i, (x, token) in enumerate(zip(COLUMNS, TOKENS, strict=True)):
        back = len(TOKENS) - 1 - i
        reached = back < 4
        parts.append(_box(x, 52, token, "stream" if reached else "line", "text" if reached else "quiet"))
        if reached:
            parts.append(bend(x, 68, COLUMNS[-1], 136, colour="stream", thick=2.5))
            parts.append(label(x - 14, 86, f"W{'₀₁₂₃'[back]}", colour="stream", bold=True))
    parts += [
        _box(COLUMNS[-1], 151, "?", "stream", "text"),
        label(8, 132, "one matrix for each distance,", anchor="start", colour="quiet"),
        label(8, 151, "as far as the kernel reaches", anchor="start", colour="quiet"),
        label(8, 206, "Attention: by content", anchor="start", bold=True),
    ]
    for x, token, weight in zip(COLUMNS, TOKENS, weights, strict=True):
        colour = "key" if token == "f1" else "query" if token == "f?" else "line"
        parts.append(_box(x, 244, token, colour, "text"))
        parts.append(
            bend(x, 260, COLUMNS[-1], 328, colour="attention", thick=1 + 8 * weight, opacity=0.3 + 0.6 * weight)
        )
    parts += [
        label(COLUMNS[0] - 18, 282, f"{weights[0]:.0%}", colour="attention", bold=True),
        _box(COLUMNS[-1], 343, "1", "attention", "text"),
        label(8, 324, "one rule for all distances:", anchor="start", colour="quiet"),
        label(8, 343, "the query “f” finds the key “f”", anchor="start", colour="quiet"),
    ]
    return Drawing(
        "By distance, or by content",
        "A list f1 c7 b4 d5 a3, and then the question f?. A convolution has one matrix for each distance and reaches "
        "the last four tokens only, so the answer 1 is out of its reach. Attention compares the query with all keys, "
        "and gives 90% of its weight to f1, wherever it stands.",
        366,
        parts,
    )


def _box(x: float, y: float, text: str, colour: str, ink: str) -> str:
    box = frame(x - 20, y - 15, 40, 30, colour=colour, fill="raised", thick=2, round=5)
    return box + label(x, y, text, size=16, mono=True, colour=ink)
