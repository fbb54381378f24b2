"""Every view passes the rules of axe-core for WCAG 2 A and AA, wide and narrow, light and dark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

OpenPage = Callable[..., Any]
Site = Any  # a running server, of the fixtures
WORDS = quote("The cat sat on a mat.")
VIEWS = {
    "runs": ("/runs?run=small", ".answer:has-text('counting')"),
    "tokens": (f"/tokens?run=small&text={WORDS}", ".tokens"),
    "inside": (f"/inside?run=small&text={WORDS}&edits=blocks.0.head.1", ".bars tr"),
    "loss": (f"/loss?run=small&text={WORDS}", ".tokens"),
    "heads": ("/heads?run=small", ".all-heads tbody tr"),
    "ladder": ("/ladder", ".rung"),
    "a section of the ladder": ("/ladder?section=4", ".code .line"),
    "neurons": (f"/heads?run=small&part=neurons&own=1&text={WORDS}", ".passages .tokens"),
}


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)], ids=["wide and light", "narrow and dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_the_rules_of_wcag(site: Site, open_page: OpenPage, view: str, width: int, dark: bool) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    path, drawn = VIEWS[view]
    page = open_page(f"{site.address}{path}", width=width, dark=dark)
    page.locator(drawn).first.wait_for()
    found = axe.Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    wrong = [
        f"{rule['id']}: {node['html'][:120]} {node['failureSummary']}"
        for rule in found.response["violations"]
        for node in rule["nodes"][:3]
    ]
    assert not wrong, "\n".join(wrong)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
