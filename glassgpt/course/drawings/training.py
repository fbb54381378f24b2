"""The drawings about training: one gradient step, the moments of AdamW, and the learning rate over the steps."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import Drawing, arrow, ink, label, line, number


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
