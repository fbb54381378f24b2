"""The drawings of the course: one for each page, readable, in words too, and in no colour of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import pytest

from glassgpt.course.drawings import DRAWINGS, Drawing, lesson_drawing
from glassgpt.course.drawings.canvas import COLOURS, TEXT, WIDTH
from glassgpt.course.drawings.curves import EVERY, NORMAL
from glassgpt.course.drawings.stack import gelu
from glassgpt.course.lessons import ADDS
from glassgpt.doctor.references import load_references
from glassgpt.models.ladder import SECTIONS
from glassgpt.ownership import SVG_MARK

SVG = "{http://www.w3.org/2000/svg}"
all_drawings = pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)


def test_every_section_has_a_drawing_and_words() -> None:
    assert list(ADDS) == [section.name for section in SECTIONS]
    titles = {lesson_drawing(section).title for section in SECTIONS}
    assert len(titles) == len(SECTIONS)
    assert all(2 <= len(re.findall(r"[.?)](?= [A-Z]|$)", text)) <= 5 for text in ADDS.values())


@all_drawings
def test_a_drawing_is_well_formed_and_has_its_words(draw: Callable[[], Drawing]) -> None:
    drawing = draw()
    for text in (drawing.svg(), drawing.document()):
        root = ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg" and root.get("role") == "img"
        assert root.get("aria-label") == f"{drawing.title}. {drawing.description}"
        assert root.get("viewBox") == f"0 0 {WIDTH} {drawing.height:g}"
        assert len(drawing.description.split()) >= 15
    assert SVG_MARK in drawing.document()  # a file of ours, which may be written again


@all_drawings
def test_no_colour_is_outside_the_language(draw: Callable[[], Drawing]) -> None:
    root = ElementTree.fromstring(draw().svg())
    allowed = {"none", *(f"var(--{name}, {light})" for name, (light, _) in COLOURS.items())}
    used = {element.get(name) for element in root.iter() for name in ("fill", "stroke")} - {None}
    assert used <= allowed
    assert not list(root.iter(f"{SVG}style")) and not any(element.get("style") for element in root.iter())


@all_drawings
def test_no_text_is_too_small_or_outside(draw: Callable[[], Drawing]) -> None:
    drawing = draw()
    for text in ElementTree.fromstring(drawing.svg()).iter(f"{SVG}text"):
        size, x, words = float(text.get("font-size", 0)), float(text.get("x", -1)), text.text or ""
        assert size >= TEXT
        width = 0.6 * size * len(words)  # a generous guess for a font without serifs
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[text.get("text-anchor", "start")]
        assert left > -0.05 * WIDTH and left + width < 1.05 * WIDTH, words
        assert 0 < float(text.get("y", -1)) <= drawing.height


def test_the_files_of_the_course_are_these_drawings() -> None:
    """`python tools/drawings.py` renews them."""
    folder = Path(__file__).parents[2] / "docs" / "course" / "drawings"
    assert {file.stem for file in folder.glob("*.svg")} == set(DRAWINGS)
    for page, draw in DRAWINGS.items():
        assert (folder / f"{page}.svg").read_text(encoding="utf-8") == draw().document(), page


def test_the_colours_are_those_of_the_pages() -> None:
    rules = (resources.files("glassgpt.server") / "assets" / "glass.css").read_text()
    light, dark = rules.index(":root {"), rules.index(':root[data-theme="dark"]')
    for name, pair in COLOURS.items():
        for start, colour in zip((light, dark), pair, strict=True):
            found = re.compile(rf"--{name}: (#[0-9a-f]{{6}})").search(rules, start)
            assert found and found[1] == colour, name


def test_a_file_of_its_own_is_light_or_dark() -> None:
    text = DRAWINGS["04-head"]().document()
    style = re.search(r"<style>svg\{(.*?)\}@media \(prefers-color-scheme: dark\)\{svg\{(.*?)\}\}</style>", text)
    assert style and "--query:#2f6fdb;" in style[1] and "--query:#7fb0ff;" in style[2]


def test_gelu_is_that_of_torch() -> None:
    import torch

    for x in (-3.0, -0.5, 0.0, 1.2):
        assert gelu(x) == pytest.approx(float(torch.nn.functional.gelu(torch.tensor(x))), abs=1e-6)


def test_the_normal_curve_is_that_of_the_doctor() -> None:
    [reference] = [each for each in load_references() if each.recipe == "char-tiny"]
    assert [(point.tokens, point.val) for point in reference.points] == [
        (EVERY * (i + 1), loss) for i, loss in enumerate(NORMAL)
    ]
