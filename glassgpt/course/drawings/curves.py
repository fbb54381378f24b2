"""The drawings about judging runs: a normal curve between its marks, and a difference between seeds."""

from __future__ import annotations

import math
from statistics import fmean, stdev

from glassgpt.course.drawings.canvas import Drawing, frame, ink, label, line

# Nats per character of Tiny Shakespeare; the page on the metrics prints them.
NOTHING, SINGLE, PAIRS = math.log(65), 3.347, 2.486
# Validation losses of char-tiny, each 100 steps of 768 characters (glassgpt/doctor/references/char-tiny.json).
EVERY = 76_800
NORMAL = (
    2.6058, 2.4876, 2.4222, 2.3369, 2.284, 2.2207, 2.1608, 2.124, 2.0842, 2.0564,
    2.0323, 2.0049, 1.9871, 1.9711, 1.9517, 1.9329, 1.923, 1.9084, 1.902, 1.8951,
)  # fmt: skip


def metrics() -> Drawing:
    """The reference curve of char-tiny, the mean of three seeds, and what a model that only counts can reach."""
    curve = [(EVERY * i, loss) for i, loss in enumerate((NOTHING, *NORMAL))]
    left, right, top, floor = 44.0, 388.0, 44.0, 300.0
    most, lowest, highest = curve[-1][0], 1.8, 4.3

    def place(tokens: float, loss: float) -> tuple[float, float]:
        share = (highest - loss) / (highest - lowest)
        return left + (right - left) * tokens / most, top + (floor - top) * share

    parts = [
        label(8, 14, "validation loss, nats per character", anchor="start", bold=True),
        line((left, top), (left, floor), (right, floor), colour="quiet", thick=1),
    ]
    for mark, name in ((NOTHING, "ln 65: knows nothing"), (SINGLE, "counts characters"), (PAIRS, "counts pairs")):
        y = place(0, mark)[1]
        parts += [
            line((left, y), (right, y), colour="quiet", thick=1, opacity=0.5),
            label(left - 6, y, f"{mark:.2f}", anchor="end", colour="quiet"),
            label(right, y - 11, name, anchor="end", colour="quiet"),
        ]
    end = place(*curve[-1])
    knee = place(*curve[2])
    parts += [
        line(*(place(*point) for point in curve), colour="accent", thick=3),
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{ink("accent")}"/>' for x, y in (place(*curve[0]), knee)),
        label(knee[0] + 8, knee[1] - 14, "the knee", anchor="start", bold=True),
        label(end[0], end[1] - 16, f"{curve[-1][1]:.2f}", anchor="end", bold=True, colour="accent"),
        label(left, floor + 16, "0", colour="quiet"),
        label(right, floor + 16, f"{most:,} characters read", anchor="end", colour="quiet"),
    ]
    return Drawing(
        "A normal curve between its marks",
        f"The validation loss of char-tiny over {most:,} characters of training, the mean of three seeds. It starts at "
        f"4.17, which is ln 65, the loss of a model that knows nothing. It falls through 3.35, the loss of counting "
        f"single characters, bends at a knee, crosses 2.48, the loss of counting pairs, and falls slowly to "
        f"{curve[-1][1]:.2f}.",
        floor + 30,
        parts,
    )


# Validation losses of the page on the journal, three seeds each.
SEEDS = {
    "base": (2.8846, 2.8900, 2.8664),
    "without weight decay": (2.8821, 2.8878, 2.8638),
    "three times the rate": (2.6225, 2.6186, 2.5887),
}


def journal() -> Drawing:
    """Three runs of each setting on one scale, and how far from the base a mean has to be."""
    base = fmean(SEEDS["base"])
    error = stdev(SEEDS["base"]) * math.sqrt(2 / 3)
    left, right, lowest, highest = 24.0, 380.0, 2.56, 2.92

    def at(loss: float) -> float:
        return left + (right - left) * (loss - lowest) / (highest - lowest)

    low, high, floor = at(base - 2 * error), at(base + 2 * error), 214.0
    parts = [
        frame(low, 30, high - low, floor - 30, colour="line", fill="accent", opacity=0.15, round=0),
        label(high, 14, "within 2 SE: has found nothing", anchor="end", bold=True, colour="accent"),
    ]
    for i, (name, losses) in enumerate(SEEDS.items()):
        y, middle = 66.0 + 60 * i, at(fmean(losses))
        parts += [
            label(left, y - 20, name, anchor="start", bold=True),
            line((left, y), (right, y), colour="line", thick=1),
            *(f'<circle cx="{at(loss):.1f}" cy="{y:g}" r="5" fill="{ink("stream")}"/>' for loss in losses),
            line((middle, y - 12), (middle, y + 12), colour="text", thick=2.5),
        ]
    parts += [
        line((left, floor), (right, floor), colour="quiet", thick=1),
        *(label(at(loss), floor + 16, f"{loss:.1f}", colour="quiet") for loss in (2.6, 2.7, 2.8, 2.9)),
        label(left, floor + 38, "validation loss: a dot is a run, a stroke the mean", anchor="start", colour="quiet"),
    ]
    return Drawing(
        "A difference counts if it is larger than two standard errors",
        "Three settings with three runs each, as dots on the scale of the validation loss. Without weight decay the "
        "mean is nearly that of the base, well within two standard errors: this has found nothing. With three times "
        "the learning rate the mean is far outside.",
        floor + 54,
        parts,
    )
