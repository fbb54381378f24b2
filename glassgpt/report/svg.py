"""The SVG elements that the charts are made of."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from glassgpt.ownership import SVG_MARK


def document(width: float, height: float, parts: Iterable[str]) -> str:
    """SVG text with a white background."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif">\n{SVG_MARK}\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def text(x: float, y: float, content: str, *, size: int = 13, anchor: str = "start", colour: str = "#333333") -> str:
    """A line of text; `anchor` says which part of it is at x: start, middle or end."""
    attributes = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text {attributes} xml:space="preserve">{escape(content)}</text>'


def rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A filled rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
