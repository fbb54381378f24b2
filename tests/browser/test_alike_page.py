"""Tokens that are alike, in a browser: the nearest ones, and a map that stands still while its tokens move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

import glassgpt as gg
from glassgpt.inspection.embeddings import neighbours

OpenPage = Callable[..., Any]
Site = Any  # a running server, of the fixtures
WORDS = "The cat sat on a mat."
PLACES = "() => [...document.querySelectorAll('.map2d g')].map(mark => mark.style.transform).join()"
AXES = "() => [...document.querySelectorAll('.map2d .axis')].map(line => line.outerHTML).join()"


@pytest.fixture
def page(site: Site, open_page: OpenPage) -> Any:
    found = open_page(f"{site.address}/inside?run=small&text={quote(WORDS)}&token=5")
    found.locator(".map2d g").first.wait_for()
    return found


def test_the_nearest_tokens(page: Any, site: Site) -> None:
    run = gg.load(site.runs / "small")
    (id,) = run.tokenizer.encode("a")
    found = neighbours(run.model, id, 10)
    names = [run.tokenizer.decode([near]).replace(" ", "·").replace("\n", "↵") for near in found.ids.tolist()]
    assert page.locator(".nearest tbody th").all_inner_texts() == names
    shares = [f"{similarity:.2f}".replace("-", "−") for similarity in found.similarities.tolist()]
    assert page.locator(".nearest tbody td.number").all_inner_texts() == shares
    assert (
        f"like that of “a” is that of “{names[0]}”: their cosine similarity is"
        in page.locator("#alike p").first.inner_text()
    )
    assert page.locator(".map2d g").count() == run.tokenizer.vocab_size
    assert page.locator(".map2d g.chosen").text_content().strip().startswith("a")
    assert page.locator(".map2d g.near").count() == 10


def test_the_slider_moves_the_tokens_and_not_the_axes(page: Any) -> None:
    places, axes = page.evaluate(PLACES), page.evaluate(AXES)
    page.locator(".film input").fill("0")
    page.wait_for_function(f"before => ({PLACES})() !== before", arg=places)
    assert page.evaluate(AXES) == axes
    page.locator(".film input").fill(page.locator(".film input").get_attribute("max"))
    page.wait_for_function(f"before => ({PLACES})() === before", arg=places)


def test_the_map_is_as_wide_as_its_panel_from_the_start(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/tokens?run=small&text={quote(WORDS)}", width=400)
    page.evaluate("() => { window.ResizeObserver = class { observe() {} disconnect() {} }; }")  # it comes later
    page.get_by_role("link", name="Inside").click()
    page.locator(".map2d g").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator(".map2d svg").bounding_box()["width"] == pytest.approx(
        page.locator(".map2d").bounding_box()["width"], abs=1
    )


def test_a_near_token_leads_to_those_alike_to_it(page: Any) -> None:
    first = page.locator(".nearest tbody button").first
    name = first.inner_text()
    first.focus()
    page.keyboard.press("Enter")
    page.get_by_text(f"The embedding most like that of “{name}”").wait_for()
    page.keyboard.press("ArrowLeft")  # another token of the text
    page.get_by_text("The embedding most like that of “c”").wait_for()
