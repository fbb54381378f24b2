"""The SVG elements that the charts are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from glassgpt.ownership import SVG_MARK

PAPER, INK = "#ffffff", "#333333"


def document(width: float, height: float, parts: Iterable[str], dark: Mapping[str, str] | None = None) -> str:
    """SVG text with a white background. `dark` names the colours that replace others where a dark page is preferred."""
    rules = "".join(f'[fill="{a}"]{{fill:{b}}}[stroke="{a}"]{{stroke:{b}}}' for a, b in (dark or {}).items())
    style = f"<style>@media (prefers-color-scheme: dark) {{{rules}}}</style>\n" if rules else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif">\n{SVG_MARK}\n{style}<rect width="100%" height="100%" fill="{PAPER}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def text(
    x: float, y: float, content: str, *,
    size: int = 13, anchor: str = "start", colour: str = INK, family: str | None = None,
) -> str:  # fmt: skip
    """A line of text; `anchor` says which part of it is at x: start, middle or end."""
    font = f' font-family="{family}"' if family else ""
    attributes = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{font}'
    return f'<text {attributes} xml:space="preserve">{escape(content)}</text>'


def rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A filled rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
