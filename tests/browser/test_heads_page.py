"""Heads in a browser: the scores of all heads, sorted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import glassgpt as gg
from glassgpt.inspection.attention import head_scores, heads_of, repeated_ids
from glassgpt.inspection.trace import trace

OpenPage = Callable[..., Any]
Site = Any  # a running server, of the fixtures


def test_all_heads_with_their_scores(site: Site, open_page: OpenPage) -> None:
    model = gg.load(site.runs / "small").model
    ids = repeated_ids(model)
    expected = head_scores(heads_of(trace(model, ids)), ids).previous
    page = open_page(f"{site.address}/heads?run=small")
    page.locator(".all-heads tbody tr").first.wait_for()
    assert page.get_by_role("columnheader", name="head ↑").get_attribute("aria-sort") == "ascending"
    rows = [row.split("\t") for row in page.locator(".all-heads tbody tr").all_inner_texts()]
    assert [row[0] for row in rows] == ["0.0", "0.1", "1.0", "1.1"]
    assert [row[1] for row in rows] == [f"{round(100 * float(score))}%" for score in expected.flatten()]


def test_sorting_effects_and_the_way_inside(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/heads?run=small")
    page.get_by_role("button", name="measure the loss without each head").click()
    page.get_by_role("button", name="loss without it").click()
    effects = page.locator(".all-heads tbody td:nth-child(7)")
    effects.filter(has_not_text="…").nth(3).wait_for()  # the column is there before its figures
    page.locator("th[aria-sort=descending]", has_text="loss without it").wait_for()
    texts = effects.all_inner_texts()
    shown = [float(text.replace("−", "-")) for text in texts]
    assert shown == sorted(shown, reverse=True) and len(shown) == 4
    signs = [text[0] for text in texts]
    assert signs == ["0" if value == 0 else "+" if value > 0 else "−" for value in shown]
    page.locator(".all-heads tbody a").first.click()
    page.locator(".headmap canvas").wait_for()
    assert "/inside?" in page.url and "head=" in page.url


def test_the_heads_of_another_run_do_not_stay(
    runs_folder: Path, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    for weights in (runs_folder / "wide").glob("checkpoints/*/model.safetensors"):
        weights.write_bytes(b"?")
    page = open_page(f"{serve(runs_folder).address}/heads?run=small", expected="400")
    page.locator(".all-heads tbody tr").first.wait_for()
    page.get_by_label("run").select_option("wide")
    page.get_by_role("alert").wait_for()
    assert page.locator(".all-heads").count() == 0
