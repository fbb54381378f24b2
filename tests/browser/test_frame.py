"""The frame around every view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving import Site


def test_navigation(site: Site, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{site.address}/")
    assert page.get_by_role("navigation", name="Views").is_visible()
