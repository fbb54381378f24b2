"""The drawings of sections 6 to 10: the MLP, stacked blocks, the residual stream, layer norm, the whole decoder.

`sublayer` draws a part that reads the stream and adds to it. The drawings of the family use it, too (family.py).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glassgpt.course.drawings.canvas import (
    Drawing,
    arrow,
    cells,
    frame,
    ink,
    label,
    line,
    number,
    operation,
    plus,
    token,
)

VECTOR = (1.3, -0.7, 0.4, -1.5, 0.9, 1.8)  # what goes in, in several drawings


def feedforward() -> Drawing:
    """Up to four times the channels, a nonlinearity, down again."""
    inputs = (1.4, -0.8, 0.5, -1.6)
    wide = [sum(x * math.sin(2.3 * (row + 1) * (i + 1)) for i, x in enumerate(inputs)) for row in range(16)]
    kept = [gelu(value) for value in wide]
    down = [sum(x * math.cos(1.1 * (row + 2) * (i + 1)) for i, x in enumerate(kept)) / 4 for row in range(4)]
    cell, big = 21.0, 30.0
    left, narrow = 200 - 8 * cell, 200 - 2 * big
    parts = [label(344, 20, "C channels", colour="quiet"), cells(narrow, 20, inputs, width=big)]
    parts += _fan(narrow, big, 4, 32, left, cell, 16, 90)
    parts += [
        label(56, 62, "up", bold=True),
        cells(left, 102, wide, width=cell),
        label(324, 128, "4C channels", colour="quiet"),
        label(96, 156, "nonlinearity", bold=True),
        label(96, 174, "GELU: keeps what is", colour="quiet"),
        label(96, 190, "above 0, drops the rest", colour="quiet"),
        arrow((200, 120), (200, 208)),
        *_gelu_curve(304, 174),
        cells(left, 226, kept, width=cell),
    ]
    parts += _fan(left, cell, 16, 238, narrow, big, 4, 296)
    parts += [
        label(56, 268, "down", bold=True),
        cells(narrow, 308, down, width=big),
        label(344, 308, "C again", colour="quiet"),
        label(200, 340, "The same at every position; nothing moves between them.", colour="quiet"),
    ]
    return Drawing(
        "Each position computes by itself",
        "Four numbers become sixteen, a nonlinearity keeps the positive ones and nearly drops the negative ones, and "
        "the result becomes four numbers again.",
        356,
        parts,
    )


def gelu(x: float) -> float:
    """x times the probability that a standard normal number is below x."""
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def _gelu_curve(x: float, y: float) -> list[str]:
    points = [(x + 20 * i / 10, y + 18 - 16 * gelu(i / 10)) for i in range(-26, 27)]
    return [
        line((x - 58, y + 18), (x + 58, y + 18), colour="line", thick=1),
        line((x, y - 30), (x, y + 28), colour="line", thick=1),
        line(*points, colour="accent", thick=2.5),
    ]


def _fan(x: float, width: float, n: int, top: float, to: float, to_width: float, to_n: int, bottom: float) -> list[str]:
    """Every cell is connected with every other."""
    return [
        line((x + (i + 0.5) * width, top), (to + (j + 0.5) * to_width, bottom), thick=0.6, opacity=0.35)
        for i in range(n)
        for j in range(to_n)
    ]


# The part of the variance that the current character explains: of the embedding, and after each of three untrained
# blocks. It is the mean of 3 models with a window of 8; docs/course/07-blocks.md measures it.
SHARES = (0.53, 0.21, 0.08, 0.04)


def blocks() -> Drawing:
    """Each block replaces what it gets, and mixes the positions once more."""
    stages: list[Sequence[float]] = [VECTOR]
    for layer in range(3):
        stages.append([1.9 * math.sin(3.1 * (i + 1) * (layer + 1) + value) for i, value in enumerate(stages[-1])])
    middle, step = 162.0, 104.0
    parts = []
    for i, values in enumerate(stages):
        y = 22 + i * step
        parts.append(cells(middle - 78, y, values))
        parts.append(label(8, y, "replaced" if i else "embedded", anchor="start", colour="quiet"))
        parts.append(frame(258, y - 8, 110 * SHARES[i], 16, colour="stream", fill="stream", round=2))
        parts.append(label(266 + 110 * SHARES[i], y, f"{SHARES[i]:.0%}", anchor="start", bold=True))
    for i in range(3):
        y = 22 + i * step
        parts += [
            arrow((middle, y + 14), (middle, y + 32)),
            _block(middle, y + 52, 164),
            arrow((middle, y + 73), (middle, y + 91)),
            label(8, y + 52, f"block {i}", anchor="start", bold=True),
        ]
    parts += [
        label(258, 56, "of the vector is", anchor="start", colour="quiet"),
        label(258, 74, "the current", anchor="start", colour="quiet"),
        label(258, 92, "character", anchor="start", colour="quiet"),
    ]
    return Drawing(
        "Blocks on top of each other, each replacing its input",
        "Three blocks of attention and MLP, one below the other. After each block stands another vector. A bar beside "
        "it says how much of it the current character explains before training: 53% of the embedding, then 21%, 8% "
        "and 4%.",
        352,
        parts,
    )


def residual() -> Drawing:
    """A straight line through the model; parts read from it and add to it."""
    x, right = 110.0, 236.0
    parts = [
        cells(x - 78, 18, VECTOR),
        arrow((x, 31), (x, 338), thick=5),
    ]
    rows = (("attention", "attention"), ("MLP", "stream"), ("attention", "attention"), ("MLP", "stream"))
    for i, (name, colour) in enumerate(rows):
        y = 48 + 68 * i
        parts += [
            arrow((x, y), (right, y), (right, y + 12), colour=colour, thick=2),
            operation(right, y + 26, 92, name, colour=colour, height=28),
            arrow((right, y + 40), (right, y + 52), (x + 12, y + 52), colour=colour, thick=2),
            plus(x, y + 52),
        ]
    parts += [
        label(300, 92, "block 0", anchor="start", bold=True),
        label(300, 228, "block 1", anchor="start", bold=True),
        label(168, 40, "read", colour="quiet"),
        label(168, 91, "add", colour="quiet"),
        arrow((40, 330), (40, 50), colour="loss-high", thick=5),
        label(22, 190, "gradient", colour="text"),
        cells(x - 78, 352, [value + 0.6 * math.sin(5 * i) for i, value in enumerate(VECTOR)]),
        label(206, 344, "the same stream,", anchor="start"),
        label(206, 362, "with all that was added", anchor="start"),
    ]
    parts[-4] = f'<g transform="rotate(-90 22 190)">{parts[-4]}</g>'
    return Drawing(
        "A straight line that every part adds to",
        "The embedding runs straight through the model as the residual stream. Attention and MLP of each block read "
        "from it, and what they compute is added to it. The gradient goes back along the stream without getting "
        "weaker.",
        376,
        parts,
    )


def layernorm() -> Drawing:
    """The same numbers at two scales become the same after the norm."""
    early = (0.5, -0.2, 0.1, -0.6, 0.3, 0.7, -0.4, 0.0)
    late = [4.2 * value + 1.4 for value in early]
    parts = [
        label(102, 14, "early in the stream", bold=True),
        label(298, 14, "late in the stream", bold=True),
        operation(200, 196, 372, "layer norm: − mean, then ÷ standard deviation", colour="stream"),
    ]
    for x, values in ((102.0, early), (298.0, late)):
        mean, deviation = statistics.fmean(values), statistics.pstdev(values)
        normal = [(value - mean) / deviation for value in values]
        parts += [
            *_bars(x, 96, values),
            label(x, 156, f"mean {number(mean)}, deviation {number(deviation)}", colour="quiet"),
            arrow((x, 166), (x, 180)),
            arrow((x, 212), (x, 226)),
            *_bars(x, 274, normal),
            label(x, 334, "mean 0, deviation 1", colour="quiet"),
        ]
    parts += [
        label(200, 360, "Attention and MLP read the same numbers at any scale."),
        label(200, 378, "Each position by itself; the stream stays as it is.", colour="quiet"),
    ]
    return Drawing(
        "Every part reads the stream at one scale",
        "Two bar charts of eight numbers: small ones early in the stream, large and shifted ones late in it. After "
        "layer norm both are the same, with mean 0 and standard deviation 1.",
        394,
        parts,
    )


def _bars(x: float, y: float, values: Sequence[float]) -> list[str]:
    """Numbers as bars up (blue) and down (red) from a line at height y, all at one scale."""
    width, unit = 19.0, 13.0
    left = x - width * len(values) / 2
    bars = [
        f'<rect x="{left + i * width + 2:g}" y="{y - unit * max(value, 0):.1f}" width="{width - 4:g}" '
        f'height="{max(0.8, unit * abs(value)):.1f}" fill="{ink("added" if value > 0 else "removed")}"/>'
        for i, value in enumerate(values)
    ]
    return [*bars, line((left - 4, y), (left + width * len(values) + 4, y), colour="quiet", thick=1)]


@dataclass(frozen=True)
class Picture:
    """A small picture inside the box of a part; `draw` takes its left end and the height of its middle."""

    width: float
    draw: Callable[[float, float], Sequence[str]]


@dataclass(frozen=True)
class Part:
    """A part of a block. Its box has the name, and below it pictures side by side, with lines of text beside them."""

    name: str
    colour: str
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()

    @property
    def height(self) -> float:
        """Of its box."""
        return 30 + max(17 * len(self.notes), 32 if self.pictures else 0)


ATTENTION, MLP = Part("attention", "attention"), Part("MLP", "stream")
NORM_ROOM = 41.0  # from where a part reads the stream to its box, with a norm between them


def sublayer(
    x: float, middle: float, top: float, width: float, part: Part, *, after: bool = False
) -> tuple[list[str], float]:
    """A part whose box, with its middle at `middle`, reads the stream at x from height `top` on, and adds to it.

    The norm is in front of the part, or, with `after`, on the stream behind the sum. Returns the elements, and the
    height of the last one's end.
    """
    begin = top + (8 if after else NORM_ROOM)
    end = begin + part.height
    side = 1 if middle > x else -1
    parts = [arrow((x, top), (middle, top), (middle, begin if after else top + 8), colour=part.colour, thick=2)]
    if not after:
        parts += [
            operation(middle, top + 20, 92, "norm", colour="stream", height=22),
            arrow((middle, top + 31), (middle, begin - 1), colour=part.colour, thick=2),
        ]
    parts += [
        operation(middle, begin + part.height / 2, width, "", colour=part.colour, height=part.height),
        label(middle, begin + 15, part.name),
        arrow((middle, end), (middle, end + 15), (x + 12 * side, end + 15), colour=part.colour, thick=2),
        plus(x, end + 15),
    ]
    left = middle - width / 2 + 8
    line_height = begin + 28 + (part.height - 36) / 2
    for picture in part.pictures:
        parts += picture.draw(left, line_height)
        left += picture.width + 8
    for i, note in enumerate(part.notes):
        y = line_height + 17 * (i - (len(part.notes) - 1) / 2)
        at, anchor = (left, "start") if part.pictures else (middle, "middle")
        parts.append(label(at, y, note, anchor=anchor, colour="quiet"))
    if not after:
        return parts, end + 24
    return [*parts, operation(x, end + 42, 56, "norm", height=22)], end + 53


def decoder() -> Drawing:
    """The whole tower, from characters to probabilities."""
    x, right = 96.0, 226.0
    parts = []
    for i, letter in enumerate("the·c"):
        parts.append(token(x + 34 * (i - 2), 20, letter, size=28))
    parts += [
        arrow((x, 38), (x, 54)),
        operation(x, 70, 150, "token + position"),
        arrow((x, 86), (x, 364), thick=5),
        label(186, 70, "a vector for each", anchor="start", colour="quiet"),
    ]
    for shift in (12, 6):  # the blocks below the first one
        parts.append(frame(38 + shift, 98 + shift, 300, 222, colour="line", fill="ground", round=10))
    parts += [
        frame(38, 98, 300, 222, colour="quiet", fill="raised", round=10),
        line((x, 86), (x, 340), thick=5),
        label(368, 200, "× L", size=20, bold=True),
        label(368, 222, "blocks", colour="quiet"),
    ]
    for part, top, does in ((ATTENTION, 116.0, "hears"), (MLP, 216.0, "thinks")):
        parts += sublayer(x, right, top, 92, part)[0]
        parts.append(label(282, top + 56, does, anchor="start", colour="quiet"))
    parts += [
        operation(x, 378, 92, "norm", height=24),
        arrow((x, 391), (x, 404)),
        operation(x, 420, 150, "head", height=28),
        label(186, 420, "scores; softmax makes %", anchor="start", colour="quiet"),
        arrow((x, 435), (x, 450)),
    ]
    for i, (letter, share) in enumerate((("a", 0.62), ("o", 0.17), ("h", 0.11))):
        y = 466 + 24 * i
        parts += [
            label(x - 6, y, letter, mono=True, size=16, anchor="end"),
            f'<rect x="{x + 6:g}" y="{y - 8:g}" width="{220 * share:.0f}" height="16" rx="2" fill="{ink("accent")}"/>',
            label(x + 14 + 220 * share, y, f"{share:.0%}", anchor="start"),
        ]
    return Drawing(
        "The whole decoder: all ideas in one tower",
        "Characters become vectors, and their sum with the position is the residual stream. It runs through L blocks; "
        "in each, attention and then the MLP read it through a norm and add to it. A last norm and the head turn it "
        "into a probability for each next character.",
        532,
        parts,
    )


def _block(x: float, y: float, width: float) -> str:
    outer = frame(x - width / 2, y - 20, width, 40, fill="raised", round=8)
    half = width / 2 - 10
    first = operation(x - half / 2 - 3, y, half, "attention", colour="attention", height=28)
    return outer + first + operation(x + half / 2 + 3, y, half, "MLP", height=28)
