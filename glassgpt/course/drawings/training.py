"""The drawings about training: one gradient step, the moments of AdamW, and the learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from glassgpt.course.drawings.canvas import Drawing, arrow, ink, label, line, number
from glassgpt.training.schedules import ScheduleConfig, learning_rate


def dot(x: float, y: float, *, colour: str = "text", radius: float = 5) -> str:
    """A point of a curve."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{ink(colour)}"/>'


def training_loop() -> Drawing:
    """Three steps of different length from one point of a parabola, with true numbers."""
    weight = 1.0
    steps = ((0.1, 22, 4), (0.5, 0, 16), (1.2, -22, 0))  # learning rates, and where the loss is written
    gradient = slope(weight)
    left, unit, floor, room = 44.0, 55.0, 236.0, 22.0

    def place(w: float, height: float) -> tuple[float, float]:
        return left + unit * w, floor - room * height

    parts = [
        line((left - 14, floor), (384, floor), colour="quiet", thick=1),
        line(*(place(0.05 * i, loss(0.05 * i)) for i in range(121)), colour="stream", thick=2.5),
        line(place(0.1, 4 - 0.9 * gradient), place(1.9, 4 + 0.9 * gradient), colour="accent", thick=2),
        label(*place(1.45, 6.4), "slope = gradient", anchor="start", bold=True, colour="accent"),
        label(*place(1.45, 5.6), number(gradient, 0), anchor="start", bold=True, colour="accent"),
        label(8, 14, "loss", anchor="start", bold=True),
        label(314, floor + 18, "weight", anchor="end", bold=True),
        label(place(0, 0)[0], floor + 18, "0", colour="quiet"),
        label(place(1, 0)[0], floor + 18, "1", colour="quiet"),
        label(place(3, 0)[0] - 9, floor + 18, "3", colour="quiet"),
        line(place(weight, 0), place(weight, loss(weight)), colour="quiet", opacity=0.5),
    ]
    start = place(weight, 0)[0]
    for i, (rate, aside, above) in enumerate(steps):
        after = weight - rate * gradient
        x, y = place(after, loss(after))
        level = floor + 48 + 32 * i
        tone = "removed" if loss(after) > loss(weight) else "added"
        parts += [
            line((x, level), (x, y), colour="quiet", opacity=0.5),
            arrow((start, level), (x, level), colour=tone, thick=2.5),
            dot(x, y, colour=tone),
            label(x + aside, y - above, number(loss(after), int(loss(after) > 0)), bold=True, colour=tone),
            label(start - 10, level, f"rate {rate:g}", anchor="end", bold=True),
        ]
    parts += [
        dot(*place(weight, loss(weight)), radius=6),
        label(*place(weight - 0.2, loss(weight) - 0.7), f"{loss(weight):g}", anchor="end", bold=True),
    ]
    return Drawing(
        "The slope says which way to go, the learning rate how far",
        f"The loss is a parabola of one weight, (w − 3)². At w = 1 the loss is 4 and its slope, the gradient, is "
        f"{number(gradient, 0)}. A step of 0.1 times the gradient lowers the loss a little, one of 0.5 times reaches "
        "the lowest point, and one of 1.2 times jumps over it, to a loss of 7.8.",
        floor + 132,
        parts,
    )


def loss(weight: float) -> float:
    """The example of the page."""
    return (weight - 3) ** 2


def slope(weight: float) -> float:
    """Its derivative."""
    return 2 * (weight - 3)


def adamw() -> Drawing:
    """The gradient, both moments and the step of two weights over 60 steps, computed by the formula."""
    before, shown = 140, 60
    noisy = [1.2 * math.sin(2.4 * t * t + t) + 0.1 for t in range(before + shown)]  # no pattern that anybody would see
    rare = [0.12 if t % 28 == 12 else 0.0 for t in range(before + shown)]
    left, width, parts = 92.0, 300.0, []
    at = [left + width * (t + 0.5) / shown for t in range(shown)]
    rows = (
        ("a common character: noise in every step", noisy, 1),
        ("a rare one: 10 times smaller (drawn × 10)", rare, 10),
    )
    for i, (name, gradients, larger) in enumerate(rows):
        first, second = (values[before:] for values in moments(gradients, 0.9, 0.99))
        size = [math.sqrt(v) for v in second]
        middle, low = 222 * i + 62.0, 222 * i + 158.0
        scale = 22.0 * larger
        parts += [
            label(8, middle - 48, name, anchor="start", bold=True),
            label(8, middle - 18, "gradient", anchor="start", colour="quiet"),
            label(8, middle, "mean", anchor="start", bold=True, colour="accent"),
            label(8, middle + 18, "usual size", anchor="start", bold=True, colour="loss-high"),
            line((left, middle), (left + width, middle), colour="quiet", thick=0.8),
        ]
        parts += [
            line((x, middle), (x, middle - scale * g), colour="stream", thick=3, opacity=0.55)
            for x, g in zip(at, gradients[before:], strict=True)
            if g
        ]
        parts += [
            line(*((x, middle - scale * v) for x, v in zip(at, size, strict=True)), colour="loss-high", thick=2.2),
            line(*((x, middle - scale * m) for x, m in zip(at, first, strict=True)), colour="accent", thick=2.2),
            label(8, low - 9, "mean /", anchor="start", bold=True),
            label(8, low + 9, "usual size", anchor="start", bold=True),
        ]
        for height in (-1, 0, 1):
            y = low - 36 * height
            parts.append(
                line((left, y), (left + width, y), colour="quiet", thick=0.8, opacity=1 if height == 0 else 0.4)
            )
            parts.append(label(left - 5, y, number(height, 0), anchor="end", colour="quiet") if height else "")
        parts += [
            line((x, low), (x, low - 36 * m / v), colour="added" if m > 0 else "removed", thick=3.4)
            for x, m, v in zip(at, first, size, strict=True)
        ]
    return Drawing(
        "The mean of the gradient, divided by its usual size",
        "Two weights over 60 steps. The first has a large noisy gradient in every step. Its mean stays near zero and "
        "its usual size is large, so the quotient is small. The second has a gradient ten times smaller in two of the "
        "steps. Its usual size is small as well, so the quotient is as large as that of the first, or larger.",
        430,
        parts,
    )


def moments(gradients: Sequence[float], beta1: float, beta2: float) -> tuple[list[float], list[float]]:
    """Both running means of AdamW after each step, with the correction for their start at zero."""
    m = v = 0.0
    first, second = [], []
    for t, g in enumerate(gradients, 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        first.append(m / (1 - beta1**t))
        second.append(v / (1 - beta2**t))
    return first, second


def schedule() -> Drawing:
    """A long and a short gradient at the limit, and the rate over a run, both computed by the real formulas."""
    limit, radius, level = 1.0, 62.0, 104.0
    parts = [label(8, 14, "clipping: no gradient is longer than 1", anchor="start", bold=True)]
    for x, (dx, dy) in ((100.0, (1.2, 1.1)), (300.0, (-0.55, 0.4))):
        length = math.hypot(dx, dy)
        share = min(1.0, limit / length)
        parts.append(
            f'<circle cx="{x:g}" cy="{level:g}" r="{radius:g}" fill="{ink("raised")}" stroke="{ink("quiet")}" '
            'stroke-width="1.5"/>'
        )
        if share < 1:
            parts.append(arrow((x, level), (x + radius * dx, level - radius * dy), colour="quiet", thick=1.5))
        parts += [
            arrow((x, level), (x + radius * dx * share, level - radius * dy * share), colour="accent", thick=3),
            dot(x, level),
            label(x, level + 86, f"length {length:.2g}" + (" (grey) → 1" if share < 1 else ": unchanged"), bold=True),
        ]
    config = ScheduleConfig(warmup_steps=100, decay_steps=1000)
    peak, steps = 1e-3, 1000
    left, right, floor, room = 60.0, 384.0, 372.0, 110.0

    def place(step: int) -> tuple[float, float]:
        return left + (right - left) * step / steps, floor - room * learning_rate(step, peak, config) / peak

    parts += [
        label(8, 230, "the learning rate over a run of 1,000 steps", anchor="start", bold=True),
        line((left, floor), (right, floor), colour="quiet", thick=1),
        line(*(place(step) for step in range(0, steps + 1, 10)), colour="accent", thick=3),
        label(left - 8, place(100)[1], f"{peak:g}", anchor="end", colour="quiet"),
        label(left - 8, place(steps)[1], f"{config.min_lr:g}", anchor="end", colour="quiet"),
        label(place(100)[0] + 26, floor - 44, "warm-up", colour="quiet"),
        label(place(720)[0], floor - 84, "decay: half a cosine", anchor="middle", colour="quiet"),
    ]
    parts += [label(place(step)[0], floor + 16, f"{step:,}", colour="quiet") for step in (100, 550)]
    parts.append(label(right, floor + 16, f"{steps:,}", anchor="end", colour="quiet"))
    return Drawing(
        "How long the gradient may be, and how the learning rate moves",
        "Above, a gradient that is longer than 1 is shortened to 1 and keeps its direction, and a shorter one is left "
        "alone. Below, the learning rate rises in a straight line over the first 100 steps to 0.001, and then falls as "
        "half a cosine to a tenth.",
        floor + 32,
        parts,
    )
