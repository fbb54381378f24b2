"""Ladder in a browser: all ten sections, one of them, the way between them, and a climb of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glassgpt.course.results import shipped_results

OpenPage = Callable[..., Any]
Site = Any  # a running server, of the fixtures


def way(rows: list[dict[str, Any]]) -> str:
    return f"from {rows[0]['val_loss']:.2f} to {rows[-1]['val_loss']:.2f}"


def test_all_ten_sections_then_one_of_them(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/ladder")
    page.locator(".rung").nth(9).wait_for()
    assert page.locator(".answer").inner_text().startswith("Together they lower the loss from ")
    rows = shipped_results()["rows"]
    shown = page.locator(".rung .loss").all_inner_texts()
    assert [text.split()[-1] for text in shown] == [f"{row['val_loss']:.2f}" for row in rows]
    assert "worse" in page.locator(".rung").nth(2).inner_text()
    page.locator(".rung").nth(3).click()
    page.locator(".code .line").first.wait_for()
    assert page.url.endswith("/ladder?section=4")
    assert page.locator(".drawing svg").get_attribute("aria-label").startswith("A query meets the keys")
    assert rows[3]["sample"] in page.locator(".samples").inner_text()
    assert rows[2]["sample"] in page.locator(".samples").inner_text()
    page.wait_for_function("() => document.activeElement.localName === 'main'")  # not lost with the link
    page.go_back()
    page.locator(".rung").first.wait_for()


def test_another_section_has_another_drawing_and_other_code(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/ladder?section=8")
    page.locator(".code .line").first.wait_for()
    added = page.locator(".code .added ins").all_inner_texts()
    assert [line.strip() for line in added] == ["x = x + self.attn(x)", "return x + self.mlp(x)"]
    assert page.locator(".code .added b").all_inner_texts() == ["x +", "x +"]
    first = page.locator(".drawing svg").get_attribute("aria-label")
    page.locator(".steps a").nth(7).click()
    page.wait_for_function("() => location.search.includes('section=7')")
    page.get_by_text("self.blocks = nn.ModuleList(").first.wait_for()
    page.wait_for_function("before => document.querySelector('.drawing svg').ariaLabel !== before", arg=first)
    assert "by itself, this idea makes it worse" in page.locator(".words").first.inner_text()


def test_folded_lines_and_the_whole_file(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/ladder?section=8")
    page.locator(".code .fold").first.wait_for()
    before = page.locator(".code .line").count()
    page.locator(".code .fold").first.click()
    page.wait_for_function(f"() => document.querySelectorAll('.code .line').length > {before}")
    page.get_by_role("button", name="the whole file").click()
    page.get_by_text("Section 8, residual connections").wait_for()
    assert page.locator(".code .fold").count() == 0
    page.locator(".code .added").get_by_text("class ResidualModel(Model):").wait_for()


def test_arrows_go_from_section_to_section(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/ladder")
    page.locator(".rung").first.wait_for()
    for key, expected in (("ArrowRight", "1"), ("ArrowRight", "2"), ("ArrowLeft", "1"), ("ArrowLeft", None)):
        page.keyboard.press(key)
        page.wait_for_function(
            "(expected) => new URLSearchParams(location.search).get('section') === expected", arg=expected
        )
    page.keyboard.press("ArrowLeft")
    page.locator(".steps [aria-current]").get_by_text("decoder").wait_for()


def test_two_quick_arrows_go_two_sections(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/ladder")
    page.locator(".rung").first.wait_for()
    page.evaluate(
        """() => new Promise((done) => {
          const key = { key: "ArrowRight", bubbles: true };
          const press = () => document.body.dispatchEvent(new KeyboardEvent("keydown", key));
          const { port1, port2 } = new MessageChannel();  // another task, before the next frame
          port1.onmessage = () => { press(); done(); };
          press();
          port2.postMessage(null);
        })"""
    )
    page.wait_for_url("**section=2")


def test_no_section_is_wider_than_a_phone(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/ladder", width=400)
    page.locator(".rung").first.wait_for()
    for section in range(1, 11):
        page.keyboard.press("ArrowRight")
        page.locator(f".steps a[aria-current]:has-text('{section}')").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        outside = page.evaluate(
            """() => { const picture = document.querySelector(".drawing svg").getBoundingClientRect();
            return [...document.querySelectorAll(".drawing svg text")].filter((text) => {
                const box = text.getBoundingClientRect();
                return box.left < picture.left - 1 || box.right > picture.right + 1 || box.bottom > picture.bottom + 1;
            }).map((text) => text.textContent); }"""
        )
        assert outside == []


def test_a_climb_of_ones_own_and_a_damaged_one(
    runs_folder: Path, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    shipped = shipped_results()["rows"]
    rows = [{**row, "val_loss": row["val_loss"] + 0.5} for row in shipped]
    for name, text in (("ladder", json.dumps(rows)), ("ladder-2", "[{")):
        (runs_folder / name).mkdir()
        (runs_folder / name / "ladder.json").write_text(text)
    page = open_page(f"{serve(runs_folder).address}/ladder?climb=ladder-2")
    page.get_by_text("Measured by your own climb, ladder").wait_for()
    assert way(rows) in page.locator(".answer").inner_text()
    assert "ladder-2 cannot be shown" in page.get_by_role("alert").inner_text()
    page.get_by_label("climb").select_option("that of the course")
    page.get_by_text("Measured with glassgpt ladder on").wait_for()
    assert way(shipped) in page.locator(".answer").inner_text()


def test_without_any_run(tmp_path: Path, serve: Callable[[Path], Site], open_page: OpenPage) -> None:
    page = open_page(f"{serve(tmp_path).address}/ladder?section=99")
    page.locator(".rung").nth(9).wait_for()
