"""The SVG elements that the charts are made of."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from glassgpt.ownership import SVG_MARK
from glassgpt.report.palette import INK, PAPER, Colour


def document(width: float, height: float, parts: Iterable[str], colours: Iterable[Colour]) -> str:
    """SVG text on paper. `colours` are all that the parts use beside PAPER and INK, in their light form.

    Where a dark page is preferred, each is replaced by its dark form.
    """
    rules = "".join(
        f'[fill="{light}"]{{fill:{dark}}}[stroke="{light}"]{{stroke:{dark}}}'
        for light, dark in dict.fromkeys([PAPER, INK, *colours])
    )
    style = f"<style>@media (prefers-color-scheme: dark) {{{rules}}}</style>\n"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif">\n{SVG_MARK}\n{style}'
        f'<rect width="100%" height="100%" fill="{PAPER.light}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def text(
    x: float, y: float, content: str, *,
    size: int = 13, anchor: str = "start", colour: Colour = INK, family: str | None = None,
) -> str:  # fmt: skip
    """A line of text; `anchor` says which part of it is at x: start, middle or end."""
    font = f' font-family="{family}"' if family else ""
    attributes = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour.light}"{font}'
    return f'<text {attributes} xml:space="preserve">{escape(content)}</text>'


def rectangle(x: float, y: float, width: float, height: float, colour: Colour) -> str:
    """A filled rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour.light}"/>'
