"""The drawing about the time that training takes: what a trick can save."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import TEXT, Drawing, frame, label


def tricks() -> Drawing:
    """The time of a step as a bar: a trick makes one part shorter, and the rest stays."""
    width, left, height = 384.0, 8.0, 30.0
    parts = []
    y = 14.0
    for name, share, trials in (
        ("Products take 60% of the step", 0.6, (1.0, 4.0, float("inf"))),
        ("Products take 20% of the step", 0.2, (1.0, 4.0)),
    ):
        parts.append(label(left, y, name, anchor="start", bold=True, size=TEXT + 1))
        y += 18
        for times in trials:
            products, rest = width * share / times, width * (1 - share)
            if products:
                parts.append(_bar(left, y, products, height, "accent", "products" if products > 64 else ""))
            parts.append(_bar(left + products, y, rest, height, "stream", "the rest"))
            if times > 1:
                faster = "in no time" if times == float("inf") else f"{times:g} times as fast"
                said = f"products {faster}: step {1 / (1 - share + share / times):.1f} times as fast"
                parts.append(label(left, y + height + 12, said, anchor="start"))
                y += 24
            y += height + 10
        y += 16
    return Drawing(
        "A trick makes one part of a step shorter",
        "Bars for the time of a step. Matrix products take 60 percent of the first one. With products that are four "
        "times as fast, the step is 1.8 times as fast. With products that take no time at all, it is 2.5 times as "
        "fast. Where products take 20 percent, products that are four times as fast make the step 1.2 times as fast.",
        y - 18,
        parts,
    )


def _bar(x: float, y: float, width: float, height: float, colour: str, name: str) -> str:
    """A part of a time, from its upper left corner."""
    box = frame(x, y, width, height, colour=colour, fill=colour, opacity=0.25, thick=1.5, round=3)
    return box + (label(x + width / 2, y + height / 2, name) if name else "")
