"""Line chart of the ladder's validation losses as SVG, which browsers and code hosting sites display directly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from glassgpt.report.palette import LINE, SERIES
from glassgpt.report.svg import document, text

WIDTH, HEIGHT = 900, 520
LEFT, RIGHT, TOP, BOTTOM = 60, 640, 50, 470  # the frame; labels are to the right of it
LINE_HEIGHT = 17.0  # minimum distance of two labels
DASHES = ("", ' stroke-dasharray="7 4"', ' stroke-dasharray="2 4"')  # when all colours have been used, once and twice


@dataclass(frozen=True)
class LadderCurve:
    """Validation losses of one section over its steps. `steps` ascend; losses that are not finite are not drawn.

    `losses` are measured on a part of the validation split. `reached` is the loss of the last step on the whole split:
    the figure in the label, and the last point of the curve.
    """

    number: int  # of the section, from 1
    name: str
    steps: Sequence[int]
    losses: Sequence[float]
    reached: float


def draw_ladder(curves: Sequence[LadderCurve], title: str) -> str:
    """SVG text: loss over steps; each curve ends at the loss it reached, which its label names."""
    finite = [_points(curve) for curve in curves]
    losses = [loss for points in finite for _, loss in points] or [0.0, 1.0]
    ticks = loss_ticks(min(losses), max(losses))
    last_step = max((step for points in finite for step, _ in points), default=1) or 1

    def x(step: float) -> float:
        return LEFT + (RIGHT - LEFT) * step / last_step

    def y(loss: float) -> float:
        return TOP + (BOTTOM - TOP) * (ticks[-1] - loss) / (ticks[-1] - ticks[0])

    parts = [text(LEFT, 22, title, size=16)]
    for tick in ticks:
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{LINE.light}"/>')
        parts.append(text(LEFT - 8, y(tick) + 4, f"{tick:.1f}", anchor="end"))
    for step in (0, last_step // 2, last_step):
        parts.append(text(x(step), BOTTOM + 20, f"{step:,}", anchor="middle"))
    parts.append(text((LEFT + RIGHT) / 2, BOTTOM + 40, "optimizer steps", anchor="middle"))
    parts.append(
        text(LEFT, TOP - 8, "validation loss, nats per token; at the last step, on the whole validation split")
    )

    ends = [y(points[-1][1]) if points else BOTTOM for points in finite]
    for curve, points, end, name_at in zip(curves, finite, ends, spread(ends, LINE_HEIGHT), strict=True):
        turn, place = divmod(curve.number - 1, len(SERIES))
        stroke = f'stroke="{SERIES[place].light}"{DASHES[turn % len(DASHES)]} stroke-width="2" fill="none"'
        path = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in points)
        reached = f"{curve.reached:.3f}" if math.isfinite(curve.reached) else "–"
        label = f"{curve.number} {curve.name}  {reached}"
        parts.append(
            f'<polyline points="{path}" {stroke} stroke-linejoin="round"><title>{escape(label)}</title></polyline>'
        )
        leader = f"M{RIGHT} {end:.1f} L{RIGHT + 16} {name_at:.1f}"
        parts.append(f'<path d="{leader}" {stroke}/>')
        parts.append(text(RIGHT + 20, name_at + 4, label))
    return document(WIDTH, HEIGHT, parts, [LINE, *SERIES])


def loss_ticks(lowest: float, highest: float) -> list[float]:
    """Round numbers that cover `lowest` to `highest`, between two and about ten of them."""
    step = next((size for size in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if (highest - lowest) / size <= 8), 10.0)
    first, last = math.floor(lowest / step), math.ceil(highest / step)
    return [round(i * step, 6) for i in range(first, max(last, first + 1) + 1)]


def spread(positions: Sequence[float], distance: float) -> list[float]:
    """The positions, moved apart as little as possible to be at least `distance` apart, in the same order.

    Positions that are too close are merged into a group around their mean, until no two groups overlap.
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    groups: list[tuple[float, list[int]]] = []  # (centre, members)
    for i in order:
        groups.append((positions[i], [i]))
        while len(groups) > 1 and _overlap(groups[-2], groups[-1], distance):
            members = groups[-2][1] + groups[-1][1]
            groups[-2:] = [(sum(positions[j] for j in members) / len(members), members)]
    result = list(positions)
    for centre, members in groups:
        for rank, i in enumerate(members):
            result[i] = centre + distance * (rank - (len(members) - 1) / 2)
    return result


def _overlap(above: tuple[float, list[int]], below: tuple[float, list[int]], distance: float) -> bool:
    return below[0] - above[0] < distance * (len(above[1]) + len(below[1])) / 2


def _points(curve: LadderCurve) -> list[tuple[int, float]]:
    losses = [*curve.losses[:-1], curve.reached]
    return [(step, loss) for step, loss in zip(curve.steps, losses, strict=True) if math.isfinite(loss)]
