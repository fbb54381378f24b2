"""The drawing about what a GPT knows beyond counting."""

from __future__ import annotations

from glassgpt.course.drawings.canvas import TEXT, Drawing, frame, label

# Losses of counting and of char-tiny, in nats per character; the page measures them.
LOSSES = {
    "all characters": (1.522, 1.894),
    "first letter of a word": (2.923, 2.959),
    "other letters": (1.245, 1.848),
    "blanks": (0.554, 0.642),
    "ends of lines": (0.907, 0.699),
}


def beyond_counting() -> Drawing:
    """Two bars for each kind of character: the loss of counting, and that of the GPT. The shorter one is better."""
    left, unit, height = 168.0, 64.0, 15.0
    parts = [label(8, 14, "loss in nats: the shorter bar is better", anchor="start", bold=True)]
    y = 38.0
    for name, pair in LOSSES.items():
        parts.append(label(8, y + height + 1, name, anchor="start", bold=name.startswith("all")))
        for row, (loss, colour) in enumerate(zip(pair, ("stream", "accent"), strict=True)):
            top = y + row * (height + 3)
            better = loss == min(pair)
            parts.append(frame(left, top, unit * loss, height, colour=colour, fill=colour, opacity=0.4, round=2))
            parts.append(label(left + unit * loss + 6, top + height / 2, f"{loss:.2f}", anchor="start", bold=better))
        y += 2 * height + 20
    for x, name, colour in ((8.0, "counting rows of 6", "stream"), (180.0, "a GPT after 2,000 steps", "accent")):
        parts.append(frame(x, y + 2, 16, 16, colour=colour, fill=colour, opacity=0.4, round=2))
        parts.append(label(x + 24, y + 10, name, anchor="start", size=TEXT))
    said = ". ".join(f"{name.capitalize()}: {one:.2f} and {other:.2f}" for name, (one, other) in LOSSES.items())
    return Drawing(
        "Counting is better inside words, and the GPT at the end of a line",
        f"Pairs of bars for the loss of counting and of a small GPT. {said}.",
        y + 30,
        parts,
    )
