"""The drawings about the time that training takes: what a trick can save, and what validation costs."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import TEXT, Drawing, frame, label

# What a validation of char-tiny costs, in steps of 768 tokens: a forward pass is a third of a step.
WHOLE, SAMPLE = 111_539 / 3 / 768, 4_000 / 3 / 768


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


def validation() -> Drawing:
    """Twice the same 40 steps, to scale, with a large and with a small validation."""
    left, unit = 8.0, 384 / (40 + 2 * WHOLE)  # of a step
    parts = []
    for y, name, cost in ((14.0, "the whole split", WHOLE), (126.0, "4,000 tokens of it", SAMPLE)):
        parts.append(label(left, y, f"validation on {name}", anchor="start", bold=True, size=TEXT + 1))
        x = left
        for _ in range(2):
            parts.append(_bar(x, y + 18, 20 * unit, 30, "stream", "20"))
            parts.append(_bar(x + 20 * unit, y + 18, cost * unit, 30, "accent", f"{cost:.0f}" if cost > 5 else ""))
            x += (20 + cost) * unit
        share = cost / (20 + cost)
        parts.append(label(left, y + 64, f"{share:.0%} of the time is validation", anchor="start"))
    parts += [
        _bar(left, 222, 16, 16, "stream", ""),
        label(left + 24, 230, "training", anchor="start"),
        _bar(left + 104, 222, 16, 16, "accent", ""),
        label(left + 128, 230, "validation, in steps of training", anchor="start"),
    ]
    return Drawing(
        "What validation costs, to scale",
        "Two timelines of 40 steps each, to scale. Above, each 20 steps are followed by a validation on the whole "
        "split, which is as long as 48 steps. Below, each 20 steps are followed by a validation on 4,000 tokens, which "
        "is as long as 2 steps.",
        248,
        parts,
    )


def _bar(x: float, y: float, width: float, height: float, colour: str, name: str) -> str:
    """A part of a time, from its upper left corner."""
    box = frame(x, y, width, height, colour=colour, fill=colour, opacity=0.25, thick=1.5, round=3)
    return box + (label(x + width / 2, y + height / 2, name) if name else "")
