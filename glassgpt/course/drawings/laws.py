"""The drawing about the scaling law: measured losses of twelve runs, and the law that was fitted to them."""

from __future__ import annotations

import math

from glassgpt.course.drawings.canvas import Drawing, label, line
from glassgpt.course.drawings.training import dot

# Measured by docs/course/experiments/scaling_law.py, seed 0: parameters, and the loss of each for the tokens of a row.
SIZES = (8_641, 26_225, 78_257, 235_841)
MEASURED = {
    117_760: (2.480, 2.404, 2.325, 2.239),
    343_040: (2.246, 2.123, 2.051, 2.008),
    1_003_520: (2.114, 1.928, 1.856, 1.786),
}
E, A, ALPHA, B, BETA = 1.177, 7.67, 0.325, 30.9, 0.3  # fitted to them by the same script


def expected(size: float, tokens: float) -> float:
    """The law, in nats per character."""
    return E + A / size**ALPHA + B / tokens**BETA


def scaling_law() -> Drawing:
    """Both axes are logarithmic. A line for each amount of text, a point for each run."""
    left, right, top, floor = 52.0, 312.0, 44.0, 284.0
    smallest, largest, low, high = 7_000, 300_000, 1.7, 2.6

    def place(size: float, loss: float) -> tuple[float, float]:
        across = math.log(size / smallest) / math.log(largest / smallest)
        return left + (right - left) * across, floor - (floor - top) * math.log(loss / low) / math.log(high / low)

    parts = [
        label(8, 14, "loss, nats per character", anchor="start", bold=True),
        label(right, floor + 40, "parameters", anchor="end", bold=True),
        line((left, floor), (right, floor), colour="quiet", thick=1),
    ]
    for loss in (1.8, 2.0, 2.2, 2.4, 2.6):
        level = place(smallest, loss)[1]
        parts.append(line((left, level), (right, level), colour="line", thick=1))
        parts.append(label(left - 8, level, f"{loss:.1f}", anchor="end", colour="quiet"))
    for size, name in ((10_000, "10,000"), (30_000, "30,000"), (100_000, "100,000")):
        x = place(size, low)[0]
        parts.append(line((x, floor), (x, floor + 5), colour="quiet", thick=1))
        parts.append(label(x, floor + 18, name, colour="quiet"))
    grid = [smallest * (largest / smallest) ** (i / 60) for i in range(61)]
    for tokens, losses in MEASURED.items():
        curve = [place(size, expected(size, tokens)) for size in grid]
        parts.append(line(*curve, colour="accent", thick=2))
        parts += [dot(*place(size, loss)) for size, loss in zip(SIZES, losses, strict=True)]
        parts.append(label(right + 6, curve[-1][1], f"{tokens:,}", anchor="start", bold=True, colour="accent"))
    parts.append(label(394, top - 12, "characters read", anchor="end", bold=True, colour="accent"))
    return Drawing(
        "More parameters and more text both lower the loss",
        "The loss of twelve runs against the number of parameters, both on logarithmic axes. Three lines belong to "
        "three amounts of text. All fall to the right. The more text, the lower the line.",
        floor + 56,
        parts,
    )
