"""The elements that the drawings of the course are made of, and the colours that they may use.

A drawing is 400 units wide and its smallest text is 13 units high, so that it can be read on a phone. Its colours are
the custom properties of the pages of `glassgpt look`. A file of its own brings them along, for light and for dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from glassgpt.ownership import SVG_MARK
from glassgpt.report.palette import ADDED, ATTENTION, KEY, LOSS, QUERY, REMOVED, STREAM, VALUE, Colour

WIDTH = 400
SHOWN = 560  # width in pixels of a file on a page that has more room
TEXT = 13  # size of the smallest text
COLOURS = {  # by their names in glass.css
    "ground": Colour("#ffffff", "#16161a"), "raised": Colour("#f6f6f8", "#1f1f25"),
    "line": Colour("#d9dade", "#383840"), "text": Colour("#1d1d22", "#ececf1"), "quiet": Colour("#5c5d66", "#a5a6b0"),
    "accent": ATTENTION, "query": QUERY, "key": KEY, "value": VALUE, "attention": ATTENTION, "stream": STREAM,
    "added": ADDED, "removed": REMOVED, "loss-high": LOSS[-1],
}  # fmt: skip
SANS = "var(--sans, system-ui, sans-serif)"
MONO = "var(--mono, ui-monospace, monospace)"


@dataclass(frozen=True)
class Drawing:
    """One idea as a picture. `description` says in words what it shows, for those who do not see it."""

    title: str
    description: str
    height: float
    parts: Sequence[str]

    def svg(self) -> str:
        """An element for a page, which has the colours as custom properties."""
        return self._element("")

    def document(self) -> str:
        """A file of its own, light or dark as its reader prefers."""
        light, dark = ("".join(f"--{name}:{pair[theme]};" for name, pair in COLOURS.items()) for theme in range(2))
        style = f"<style>svg{{{light}}}@media (prefers-color-scheme: dark){{svg{{{dark}}}}}</style>"
        ground = f'<rect width="100%" height="100%" fill="{ink("ground")}"/>'
        size = f'width="{SHOWN}" height="{SHOWN * self.height / WIDTH:g}" '
        return self._element(f"\n{SVG_MARK}\n{style}\n{ground}", size) + "\n"

    def _element(self, head: str, size: str = "") -> str:
        label = escape(f"{self.title}. {self.description}")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}viewBox="0 0 {WIDTH} {self.height:g}" role="img" '
            f'aria-label="{label}" font-family="{SANS}">{head}\n' + "\n".join(self.parts) + "\n</svg>"
        )


def ink(name: str) -> str:
    """A colour of the language. Raises KeyError for any other."""
    return f"var(--{name}, {COLOURS[name][0]})"


def label(
    x: float, y: float, content: str, *,
    colour: str = "text", size: float = TEXT, anchor: str = "middle", bold: bool = False, mono: bool = False,
) -> str:  # fmt: skip
    """A line of text, centred at height y."""
    style = (' font-weight="650"' if bold else "") + (f' font-family="{MONO}"' if mono else "")
    place = f'x="{x:g}" y="{y + 0.35 * size:.2f}" font-size="{size:g}" text-anchor="{anchor}"'
    return f'<text {place} fill="{ink(colour)}"{style}>{escape(content)}</text>'


def frame(
    x: float, y: float, width: float, height: float, *,
    colour: str = "line", fill: str = "ground", opacity: float = 1, thick: float = 1, round: float = 4,
) -> str:  # fmt: skip
    """A rectangle with rounded corners, from its upper left corner. `fill` may be "none"."""
    inside = "none" if fill == "none" else ink(fill)
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round:g}" fill="{inside}" '
        f'fill-opacity="{opacity:.3g}" stroke="{ink(colour)}" stroke-width="{thick:g}"/>'
    )


def token(x: float, y: float, letter: str, *, colour: str = "line", thick: float = 1.5, size: float = 30) -> str:
    """A character in its box, centred."""
    box = frame(x - size / 2, y - size / 2, size, size, colour=colour, fill="raised", thick=thick, round=5)
    return box + label(x, y, letter, size=size * 0.57, mono=True)


def operation(x: float, y: float, width: float, name: str, *, colour: str = "stream", height: float = 30) -> str:
    """A part of the model that computes something, centred: a box tinted with its colour. It may have no name."""
    left, top = x - width / 2, y - height / 2
    paper = frame(left, top, width, height, colour=colour, thick=1.5, round=6)
    tint = frame(left, top, width, height, colour=colour, fill=colour, opacity=0.12, thick=1.5, round=6)
    return paper + tint + (label(x, y, name) if name else "")


def cells(
    x: float, y: float, values: Sequence[float], *,
    colour: str = "stream", width: float = 26, height: float = 24, most: float = 2.0, digits: int | None = None,
) -> str:  # fmt: skip
    """A vector, centred at height y, from x on. Blue is above 0 and red below; `digits` writes the numbers too."""
    parts = []
    top = y - height / 2
    for i, value in enumerate(values):
        left, strength = x + i * width, min(1, abs(value) / most)
        tone = "added" if value > 0 else "removed"
        parts.append(
            f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" fill="{ink(tone)}" '
            f'fill-opacity="{0.6 * strength:.3f}" stroke="{ink("line")}"/>'
        )
        if digits is not None:
            parts.append(label(left + width / 2, y, number(value, digits)))
    parts.append(frame(x, top, width * len(values), height, colour=colour, fill="none", thick=2, round=3))
    return "".join(parts)


def arrow(*points: tuple[float, float], colour: str = "stream", thick: float = 1.5) -> str:
    """A line through the points, with a head at the last one."""
    (x0, y0), (x1, y1) = points[-2:]
    length = math.dist((x0, y0), (x1, y1))
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    size = 5 + 1.2 * thick
    back = (x1 - size * dx, y1 - size * dy)
    half = 0.5 * size
    corners = [(x1, y1), (back[0] - half * dy, back[1] + half * dx), (back[0] + half * dy, back[1] - half * dx)]
    shape = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return line(*points[:-1], back, colour=colour, thick=thick) + f'<polygon points="{shape}" fill="{ink(colour)}"/>'


def line(*points: tuple[float, float], colour: str = "stream", thick: float = 1.5, opacity: float = 1) -> str:
    """A line through the points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{ink(colour)}" stroke-width="{thick:.2f}" '
        f'stroke-opacity="{opacity:.3g}" stroke-linejoin="round"/>'
    )


def bend(x0: float, y0: float, x1: float, y1: float, *, colour: str, thick: float = 1.5, opacity: float = 1) -> str:
    """A smooth line downwards."""
    middle = (y0 + y1) / 2
    return (
        f'<path d="M{x0:g} {y0:g} C{x0:g} {middle:g} {x1:g} {middle:g} {x1:g} {y1:g}" fill="none" '
        f'stroke="{ink(colour)}" stroke-width="{thick:.2f}" stroke-opacity="{opacity:.3g}"/>'
    )


def plus(x: float, y: float, radius: float = 9) -> str:
    """The sum of what comes in."""
    circle = f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{ink("ground")}" stroke="{ink("stream")}" '
    return circle + 'stroke-width="2"/>' + line((x - 5, y), (x + 5, y)) + line((x, y - 5), (x, y + 5))


def weight_map(
    x: float, y: float, weights: Sequence[Sequence[float | None]], cell: float, *, colour: str = "attention"
) -> str:
    """Weights from 0 to 1 as cells, one row for each query, from the upper left corner. None: masked, not drawn."""
    parts = []
    for row, line_of in enumerate(weights):
        for column, weight in enumerate(line_of):
            if weight is not None:
                parts.append(
                    f'<rect x="{x + column * cell:g}" y="{y + row * cell:g}" width="{cell:g}" height="{cell:g}" '
                    f'fill="{ink(colour)}" fill-opacity="{0.9 * weight:.3f}" stroke="{ink("line")}"/>'
                )
    return "".join(parts)


def number(value: float, digits: int = 1) -> str:
    """A number with a true minus sign, and none before a zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
