"""Pictures and pages have the same colours, on light and on dark paper."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
from test_run_picture import record

from glassgpt.report import page, palette
from glassgpt.report.bars_picture import Bar, draw_bars
from glassgpt.report.ladder_picture import LadderCurve, draw_ladder
from glassgpt.report.palette import LOSS, SERIES
from glassgpt.report.run_picture import draw_run

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = {
    "query": palette.QUERY, "key": palette.KEY, "value": palette.VALUE, "attention": palette.ATTENTION,
    "stream": palette.STREAM, "added": palette.ADDED, "removed": palette.REMOVED, "loss-low": LOSS[0],
    "loss-high": LOSS[-1], **{f"series-{n}": colour for n, colour in enumerate(SERIES)},
}  # fmt: skip
LOSS_NAMES = {f"loss-{n}": colour for n, colour in enumerate(LOSS)}


def properties(css: str) -> list[dict[str, str]]:
    """The custom properties of each rule that has some."""
    rules = re.findall(r"\{([^{}]*--[^{}]*)\}", css)
    return [dict(re.findall(r"--([\w-]+):\s*([^;]+);", rule)) for rule in rules]


def in_rgb(colour: str) -> str:
    return ", ".join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))


def test_the_pages_of_the_app_have_these_colours() -> None:
    css = (resources.files("glassgpt.server") / "assets" / "glass.css").read_text(encoding="utf-8")
    light, *dark = [rule for rule in properties(css) if "query" in rule]
    assert light.items() >= {name: colour.light for name, colour in NAMES.items()}.items()
    assert len(dark) == 2  # as the system says, and as the reader has chosen
    for rule in dark:
        assert rule.items() >= {name: colour.dark for name, colour in NAMES.items()}.items()
        assert rule["map-high"] == in_rgb(palette.ATTENTION.dark)
    assert light["map-high"] == in_rgb(palette.ATTENTION.light)
    assert light["map-low"] == in_rgb(palette.PAPER.light)


def test_reports_have_these_colours() -> None:
    series = {f"series-{n}": colour for n, colour in enumerate(SERIES)}
    paper = {"paper": palette.PAPER, "ink": palette.INK, "quiet": palette.QUIET, "line": palette.LINE}
    rules = properties(page.asset("report.css"))
    for first, wanted in (("series-0", series | paper), ("loss-0", LOSS_NAMES)):
        light, dark = [rule for rule in rules if first in rule]
        assert light.items() >= {name: colour.light for name, colour in wanted.items()}.items()
        assert dark.items() >= {name: colour.dark for name, colour in wanted.items()}.items()


def test_notebooks_have_these_colours() -> None:
    (found,) = [rule for rule in properties(page.asset("look.css")) if "attention" in rule]
    for name, colour in ({"attention": palette.ATTENTION} | LOSS_NAMES).items():
        assert found[name] == f"light-dark({colour.light}, {colour.dark})"


def drawn(svg: str) -> set[str]:
    """The colours of a picture on light paper."""
    elements = ElementTree.fromstring(svg).iter()
    return {element.attrib.get(kind, "none") for element in elements for kind in ("fill", "stroke")} - {"none"}


def run() -> str:
    return draw_run(record([{"step": 0, "text": "a"}]))


def ladder() -> str:
    return draw_ladder([LadderCurve(n, f"s{n}", [0, 10], [4.0, 3.0], 3.0) for n in range(1, 11)], "ladder")


def bars() -> str:
    ratios = [Bar("a", 2.0, 0.5), Bar("b", 0.5, 2.0), Bar("c", 1.0, 1.0), Bar("d", missing="why")]
    return draw_bars(ratios, "tricks", 0.05)


@pytest.mark.parametrize("draw", [run, ladder, bars])
def test_every_colour_of_a_picture_has_one_for_dark_pages(draw: Callable[[], str]) -> None:
    svg = draw()
    dark = dict(re.findall(r'\[fill="(#\w{6})"\]\{fill:(#\w{6})\}', svg))
    assert drawn(svg) == dark.keys()


@pytest.mark.parametrize(
    ("name", "draw"), [("demo.svg", run), ("course/ladder.svg", ladder), ("course/tricks.svg", bars)]
)
def test_the_pictures_of_the_docs_have_the_colours_that_are_drawn_now(name: str, draw: Callable[[], str]) -> None:
    assert drawn((DOCS / name).read_text(encoding="utf-8")) == drawn(draw())


def test_the_curves_of_the_course_are_a_series() -> None:
    svg = (DOCS / "course" / "curves.svg").read_text(encoding="utf-8")
    lines = re.findall(r'stroke="(#\w{6})" stroke-width="2"', svg)
    assert sorted(lines) == sorted(colour.light for colour in SERIES[:5])


def test_curves_that_share_a_colour_differ_in_their_stroke() -> None:
    lines = ElementTree.fromstring(ladder()).iter("{http://www.w3.org/2000/svg}polyline")
    assert len({(line.attrib["stroke"], line.attrib.get("stroke-dasharray")) for line in lines}) == 10


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2)."""
    lights = []
    for colour in (one, other):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(lights) / min(lights)


def test_text_on_the_colour_of_a_loss_can_be_read() -> None:
    for level, colour in enumerate(LOSS):
        text = palette.INK if level < 4 else palette.PAPER
        assert contrast(text.light, colour.light) >= 4.5
        assert contrast(text.dark, colour.dark) >= 4.5
