"""The grid of the logit lens in a browser: what a layer would say next, for every token of the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

import glassgpt as gg
from glassgpt.inspection.lens import logit_lens
from glassgpt.server.views import inside

OpenPage = Callable[..., Any]
Site = Any  # a running server, of the fixtures
WORDS = "The cat sat on a mat."
ADDRESS = f"/inside?run=small&text={quote(WORDS)}"
CELLS = (
    "() => [...document.querySelectorAll('.lens-grid tbody tr')].map(row => [...row.cells].map(cell => cell.innerText))"
)


def grid(page: Any) -> list[list[str]]:
    """The text of all cells, with the labels of the rows."""
    found: list[list[str]] = page.evaluate(CELLS)
    return found


def token(page: Any) -> list[str]:
    return parse_qs(urlsplit(page.url).query).get("token", [])


@pytest.fixture
def page(site: Site, open_page: OpenPage) -> Any:
    found = open_page(f"{site.address}{ADDRESS}")
    found.locator(".lens-grid").wait_for()
    found.locator(".lens td").first.wait_for()
    return found


def test_the_grid_is_that_of_the_model(page: Any, site: Site) -> None:
    run = gg.load(site.runs / "small")
    ids = run.tokenizer.encode(WORDS)
    found = logit_lens(gg.trace(run.model, ids), top=1).ids[..., 0]
    shown = [[run.tokenizer.decode([id]).replace(" ", "·").replace("\n", "↵") for id in row] for row in found.tolist()]
    assert grid(page) == [[label, *row] for label, row in zip(("embedding", "block 0", "output"), shown, strict=True)]
    hits = page.locator(".lens-grid tbody td.true").count()
    assert hits == sum(row[at] == ids[at + 1] for row in found.tolist() for at in range(len(ids) - 1))


def test_the_sentence_counts_the_tokens_whose_answer_is_settled(page: Any) -> None:
    rows = [row[1:] for row in grid(page)]
    after = [
        sum(all(row[at] == rows[-1][at] for row in rows[n:]) for at in range(len(WORDS))) for n in range(len(rows))
    ]
    told = page.locator("#lens p").first.inner_text()
    layer = next(n for n, count in enumerate(after) if 2 * count > len(WORDS))
    if layer == len(rows) - 1:
        assert (
            f"for {after[-1] - after[-2]} of {len(WORDS)} tokens the final answer takes first place only there" in told
        )
    else:
        where = ("in the embedding", "after block 0")[layer]
        assert f"For {after[layer]} of {len(WORDS)} tokens the final answer is already in first place {where}" in told


def test_a_click_in_a_column_chooses_its_token(page: Any) -> None:
    page.locator(".lens-grid tbody tr").nth(1).locator("td").nth(4).click()
    page.get_by_role("heading", name="after “c”: the most likely").wait_for()
    page.get_by_role("heading", name="what comes next, after “c”").wait_for()
    assert token(page) == ["4"]
    page.locator(".lens-grid thead button").nth(7).click()
    page.get_by_role("heading", name="what comes next, after “·”").wait_for()
    assert token(page) == ["7"]
    page.keyboard.press("ArrowRight")  # the focus is on a column, and goes with the choice
    page.wait_for_function("() => document.activeElement.ariaLabel === 's, token 8'")
    assert token(page) == ["8"]


def test_the_slider_and_an_edit_change_the_grid(page: Any) -> None:
    last = grid(page)
    changed = f"before => JSON.stringify(({CELLS})()) !== before"
    as_text = page.evaluate(f"() => JSON.stringify(({CELLS})())")
    page.locator(".film input").fill("0")
    page.wait_for_function(changed, arg=as_text)
    page.locator(".film input").fill(page.locator(".film input").get_attribute("max"))
    page.wait_for_function(f"before => JSON.stringify(({CELLS})()) === before", arg=as_text)
    page.get_by_role("group", name="Switch off").get_by_role("button", name="block").click()
    page.wait_for_function(changed, arg=as_text)
    assert len(grid(page)) == len(last)


def test_a_window_goes_with_the_chosen_token(site: Site, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "LENS_POSITIONS", 8)
    page = open_page(f"{site.address}{ADDRESS}&token=0")
    page.get_by_text("of 8 tokens shown").wait_for()
    columns = (
        "() => [...document.querySelectorAll('.lens-grid thead th')].slice(1).map(cell => cell.innerText).join('')"
    )
    assert page.evaluate(columns) == "The·cat·"
    for _ in range(len(WORDS) - 1):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => ({columns})() === 'n·a·mat.'")
    assert page.locator(".lens-grid thead [aria-pressed=true]").inner_text() == "."


def test_it_is_read_on_a_narrow_screen(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}{ADDRESS}", width=400)
    page.locator(".lens-grid").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    chosen = page.locator(".lens-grid thead [aria-pressed=true]")
    box, panel = chosen.bounding_box(), page.locator("#lens").bounding_box()
    assert panel["x"] <= box["x"] and box["x"] + box["width"] <= panel["x"] + panel["width"]  # the last of 21 columns
    label = page.get_by_role("rowheader", name="embedding").first.bounding_box()
    assert panel["x"] <= label["x"] < box["x"]
