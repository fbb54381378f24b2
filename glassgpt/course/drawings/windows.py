"""The drawing of the page on batches: windows of a text, and their targets one place further."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import Drawing, arrow, frame, label, line, token

TEXT = "To be, or not to be: that"
WINDOW = 5
STARTS = (2, 14)


def batches() -> Drawing:
    """Two windows of the text become the rows of a batch; the targets are the same windows, one place further."""
    cell, left, top = 15.6, 5.0, 34.0
    parts = []
    for i, letter in enumerate(TEXT):
        parts.append(frame(left + i * cell, top, cell, 26, fill="raised", round=0))
        parts.append(label(left + (i + 0.5) * cell, top + 13, shown(letter), mono=True, size=14))
    for row, start in enumerate(STARTS):
        y, from_, width = 120.0 + 112 * row, left + start * cell, WINDOW * cell
        colour = ("accent", "stream")[row]
        parts += [
            frame(from_, top - 3, width, 32, colour=colour, fill="none", thick=2.5, round=3),
            label(from_ + width / 2, 16, f"row {row + 1}", bold=True, colour=colour),
            line((from_ + cell, top + 35), (from_ + cell + width, top + 35), colour=colour, thick=2.5),
            label(8, y - 9, f"row {row + 1}", anchor="start", bold=True, colour=colour),
            label(8, y + 9, "input: it is read", anchor="start"),
            label(8, y + 48, "target: to be guessed", anchor="start"),
        ]
        for i in range(WINDOW):
            x = 184 + 46 * i
            parts += [
                token(x, y, shown(TEXT[start + i]), colour=colour),
                arrow((x, y + 17), (x, y + 31), colour="quiet"),
                token(x, y + 48, shown(TEXT[start + i + 1])),
            ]
    parts.append(label(200, 318, "In the text, a frame holds the inputs of a row.", colour="quiet"))
    parts.append(label(200, 337, "The line below has its targets, one place further.", colour="quiet"))
    return Drawing(
        "Windows of the text become the rows of a batch",
        f"Two windows of {WINDOW} characters are cut from the text {TEXT}. Each becomes a row of inputs. Its targets "
        "are the same window, one place further to the right, so that every input has the character that comes after "
        "it as its target.",
        354,
        parts,
    )


def shown(letter: str) -> str:
    """The character as a reader sees it."""
    return letter.replace(" ", "·")
