"""Bar chart as SVG: speed and memory ratios of several changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glassgpt.report.palette import ADDED, LINE, QUIET, REMOVED, Colour
from glassgpt.report.svg import document, rectangle, text

ROW, TOP, BOTTOM = 30, 76, 34
NAME_RIGHT, WIDTH = 170, 900
PANELS = ((190, 520), (560, 890))  # left and right edges of the two groups of bars
BETTER, WORSE = ADDED, REMOVED
EVEN, NOISE = Colour("#9aa4b3", "#9aa4b3"), Colour("#eceff3", "#22272f")


@dataclass(frozen=True)
class Bar:
    """One change: its ratios (with / without it), or why they are missing."""

    name: str
    speed: float = 1.0
    memory: float = 1.0
    missing: str | None = None
    certain: bool = True  # whether all rounds agree on the direction of the speed


def draw_bars(bars: Sequence[Bar], title: str, noise: float) -> str:
    """SVG text: speed on the left, peak memory on the right, both on a logarithmic axis centred on 1.

    The grey band is the noise: a bar that ends inside it is not significant.
    """
    height = TOP + ROW * len(bars) + BOTTOM
    reaches = (_reach([bar.speed for bar in bars]), _reach([bar.memory for bar in bars]))
    parts = [text(16, 24, title, size=16)]
    labels = ("speed, times that without the trick (grey: noise)", "peak memory, times that without the trick")
    for (left, right), label, reach in zip(PANELS, labels, reaches, strict=True):
        parts.append(text(left, 50, label))
        x = _axis(left, right, reach)
        if label.startswith("speed"):
            start, end = x(max(1 - noise, 1 / reach)), x(min(1 + noise, reach))  # on a busy machine it can be above 1
            parts.append(rectangle(start, TOP - 8, end - start, ROW * len(bars) + 8, NOISE))
        for tick in _ticks(reach):
            parts.append(
                f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP - 8}" y2="{height - BOTTOM}"'
                f' stroke="{LINE.light}"/>'
            )
            parts.append(text(x(tick), height - BOTTOM + 18, f"{tick:g}", anchor="middle", size=12))
    for number, bar in enumerate(bars):
        y = TOP + ROW * number
        parts.append(text(NAME_RIGHT, y + 15, bar.name, anchor="end"))
        if bar.missing is not None:
            parts.append(text(PANELS[0][0], y + 15, "not measured", colour=QUIET))
            continue
        speed = _colour(bar.speed, 1.0, noise) if bar.certain else EVEN
        colours = (speed, _colour(1 / bar.memory, 1.0, noise))
        for (left, right), reach, ratio, colour in zip(PANELS, reaches, (bar.speed, bar.memory), colours, strict=True):
            x = _axis(left, right, reach)
            start, end = sorted((x(1.0), x(ratio)))
            parts.append(rectangle(start, y + 3, max(end - start, 1.5), 15, colour))
            label_x, anchor = (end + 5, "start") if ratio >= 1 else (start - 5, "end")
            parts.append(text(label_x, y + 15, f"{ratio:.2f}", anchor=anchor, size=12))
    return document(WIDTH, height, parts, [BETTER, WORSE, EVEN, NOISE, LINE, QUIET])


def _reach(ratios: Sequence[float]) -> float:
    """Largest ratio on the axis, which goes from 1 / reach to reach."""
    return max([2.0, *(max(ratio, 1 / ratio) for ratio in ratios)])


def _axis(left: float, right: float, reach: float) -> Callable[[float], float]:
    """Maps a ratio to an x coordinate, logarithmically, with 1 in the middle."""
    middle, half = (left + right) / 2, (right - left) / 2 - 34  # space for the label of the longest bar
    return lambda ratio: middle + half * math.log(ratio) / math.log(reach)


def _ticks(reach: float) -> list[float]:
    """Powers of two within reach, at most about seven."""
    top = math.floor(math.log2(reach))
    step = max(1, -(-top // 3))
    return [2.0**power for power in range(-top // step * step, top + 1, step) if 1 / reach <= 2.0**power <= reach]


def _colour(ratio: float, even: float, noise: float) -> Colour:
    if abs(ratio - even) <= noise:
        return EVEN
    return BETTER if ratio > even else WORSE
