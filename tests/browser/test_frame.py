"""The frame around every view, and the way from one view to another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import Site

OpenPage = Callable[..., Any]


def test_navigation(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/")
    page.get_by_role("navigation", name="Views").wait_for()


def test_a_link_into_another_view_shows_its_top_and_keeps_the_focus(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/heads?run=small&part=neurons", width=400)
    link = page.get_by_role("link", name="off in this text")
    link.focus()  # far below
    page.wait_for_function("() => scrollY > 0")
    page.keyboard.press("Enter")
    page.locator(".headmap canvas").wait_for()
    page.wait_for_function("() => scrollY === 0 && document.activeElement.localName === 'main'")
    page.keyboard.press("Tab")
    page.wait_for_function(
        "() => document.activeElement.closest('main') && document.activeElement.localName !== 'main'"
    )


def test_keys_do_nothing_behind_the_help(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/inside?run=small")
    page.locator(".headmap canvas").wait_for()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").wait_for()
    address = page.url
    for key in ("ArrowLeft", "[", "h"):
        page.keyboard.press(key)
    assert page.url == address and page.evaluate("document.activeElement.closest('dialog') !== null")


@pytest.mark.parametrize("view", ["inside", "loss", "heads"])
def test_a_run_without_a_model_is_named(
    view: str, runs_folder: Path, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    shutil.rmtree(runs_folder / "wide" / "checkpoints")
    address = serve(runs_folder).address
    page = open_page(f"{address}/{view}?run=wide")
    told = "There is no model to look into in wide: it has no checkpoint yet."
    page.get_by_role("alert").get_by_text(told, exact=True).wait_for()
    assert page.locator("main h1").count() == 0
    page.get_by_label("run").select_option("small")
    page.locator("main h1").wait_for()
    page = open_page(f"{address}/{view}?run=gone")
    page.locator("main h1").wait_for()
    page.get_by_text("There is no run gone here; this is small.").wait_for()


def test_another_run_of_the_list_takes_nothing_of_the_old_one_along(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/runs?run=small&step=10&token=3&text=The")
    page.get_by_role("button", name="wide", exact=True).click()
    page.wait_for_function("() => location.search.includes('run=wide')")
    page.get_by_role("link", name="Inside").click()
    page.locator(".headmap canvas").wait_for()
    assert page.url.endswith("/inside?run=wide&text=The")
