"""The drawings of the course and of the family: readable, in words too, and in no colour of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import pytest

from glassgpt.course.drawings import DRAWINGS, FAMILY, Drawing, draw_family, lesson_drawing
from glassgpt.course.drawings.canvas import COLOURS, TEXT, WIDTH
from glassgpt.course.drawings.curves import EVERY, NORMAL
from glassgpt.course.drawings.stack import Part, gelu, sublayer
from glassgpt.course.lessons import ADDS
from glassgpt.doctor.references import load_references
from glassgpt.models.bert import BertConfig
from glassgpt.models.gpt2 import GPT2Config
from glassgpt.models.gpt_oss import GPTOssConfig
from glassgpt.models.ladder import SECTIONS
from glassgpt.models.qwen3 import Qwen3Config
from glassgpt.models.t5 import T5Config
from glassgpt.models.transformer import TransformerConfig
from glassgpt.ownership import SVG_MARK

SVG = "{http://www.w3.org/2000/svg}"
DOCS = Path(__file__).parents[2] / "docs"
FAMILY_DRAWINGS = {name: partial(draw_family, model) for name, model in FAMILY.items()}
ALL = DRAWINGS | {f"family/{name}": draw for name, draw in FAMILY_DRAWINGS.items()}
all_drawings = pytest.mark.parametrize("draw", ALL.values(), ids=ALL)


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


@pytest.mark.parametrize(("place", "drawings"), [("course/drawings", DRAWINGS), ("drawings", FAMILY_DRAWINGS)])
def test_the_files_are_these_drawings(place: str, drawings: dict[str, Callable[[], Drawing]]) -> None:
    """`python tools/drawings.py` renews them."""
    folder = DOCS / place
    assert {file.stem for file in folder.glob("*.svg")} == set(drawings)
    for name, draw in drawings.items():
        assert (folder / f"{name}.svg").read_text(encoding="utf-8") == draw().document(), name


def test_the_family_shows_every_model_as_its_file_has_it() -> None:
    """Each drawing is shown, and its blocks are those of the published size that the model's settings have."""
    page = (DOCS / "family.md").read_text(encoding="utf-8")
    for name, model in FAMILY.items():
        assert f"](drawings/{name}.svg)" in page
        assert (DOCS.parent / "glassgpt" / "models" / f"{name}.py").is_file()
        assert len(draw_family(model).document()) <= 30_000
    sizes = {
        "transformer": TransformerConfig(), "gpt2": GPT2Config(), "bert": BertConfig(), "t5": T5Config(),
        "qwen3": Qwen3Config(), "gpt_oss": GPTOssConfig(),
    }  # fmt: skip
    for name, config in sizes.items():
        assert {tower.blocks for tower in FAMILY[name].towers} == {config.n_layer}, name


def test_a_norm_is_drawn_before_or_behind_its_part() -> None:
    """The norm of a pre-norm part is above its box; that of a post-norm part is on the stream, below the sum."""
    for after in (False, True):
        parts, end = sublayer(40, 200, 100, 120, Part("MLP", "stream"), after=after)
        texts = ElementTree.fromstring(f"<g>{''.join(parts)}</g>").iter("text")
        place = {text.text: (float(text.get("x", 0)), float(text.get("y", 0))) for text in texts}
        assert (place["norm"][1] > place["MLP"][1]) == after
        assert place["norm"][0] == (40 if after else 200) and place["norm"][1] < end


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
