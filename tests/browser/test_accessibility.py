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
def test_the_rules_of_wcag(
    site: Site, open_page: OpenPage, check_wcag: Callable[[Any, int], None], view: str, width: int, dark: bool
) -> None:
    path, drawn = VIEWS[view]
    page = open_page(f"{site.address}{path}", width=width, dark=dark)
    page.locator(drawn).first.wait_for()
    check_wcag(page, width)
