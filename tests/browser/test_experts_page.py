"""Inside for a mixture of experts with windows and sinks: what a token sees, what the sink takes, who computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import glassgpt as gg
from glassgpt.inspection.attention import sinks_of
from glassgpt.inspection.experts import routes_of
from glassgpt.inspection.trace import trace

OpenPage = Callable[..., Any]
Site = Any  # a running server, of the fixtures
WORDS = "The cat sat on a mat."
ADDRESS = f"/inside?run=experts&text={quote(WORDS)}"
WINDOW = 4
SETTINGS = {
    "model.architecture": "gpt_oss", "model.n_layer": 2, "model.n_head": 2, "model.n_embd": 16, "model.block_size": 32,
    "model.head_size": 8, "model.band_width": WINDOW, "model.n_expert": 4, "model.n_active": 2,
    "schedule.warmup_steps": 1, "training.batch_tokens": 64, "training.max_steps": 4, "machine.device": "cpu",
    "evaluation.tokens": 100, "checkpoint.snapshots": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def experts_runs(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a mixture of experts: block 0 has a window of 4 tokens, block 1 sees all before."""
    root = tmp_path_factory.mktemp("family") / "runs"
    root.mkdir()
    (source := root.parent / "sentences.txt").write_text(text, encoding="utf-8")
    gg.train("char-tiny", data=source, run=root / "experts", settings=SETTINGS, listener=gg.Listener())
    return root


@pytest.fixture
def page(experts_runs: Path, serve: Callable[[Path], Site], open_page: OpenPage) -> Any:
    found = open_page(f"{serve(experts_runs).address}{ADDRESS}&head=0.1")
    found.locator(".headmap canvas").first.wait_for()
    return found


def opacity(page: Any, row: int, column: int) -> int:
    """Of a cell of the map: 0 where the hatched ground shows."""
    return page.locator(".headmap .picture canvas").evaluate(
        "(canvas, [row, column]) => canvas.getContext('2d').getImageData(column, row, 1, 1).data[3]", [row, column]
    )


def test_the_ground_shows_where_a_token_does_not_see(page: Any) -> None:
    for row in (0, 3, 7, 20):
        for column in range(21):
            assert (opacity(page, row, column) == 255) == (row - WINDOW < column <= row), (row, column)
    page.get_by_role("heading", name=f"head 0.1, window of {WINDOW} tokens").wait_for()
    names = page.locator(".heads .layer > span").all_inner_texts()
    assert names == [f"0 window {WINDOW}", "1 full"]
    page.locator(".headmap .picture").click(position={"x": 3, "y": 3})
    page.get_by_text(f"outside of the window of {WINDOW} tokens").wait_for()
    page.get_by_role("button", name="head 1.1").click()
    page.get_by_role("heading", name="head 1.1, full").wait_for()
    assert opacity(page, 20, 0) == 255
    assert opacity(page, 0, 20) == 0


def test_what_is_outside_of_the_window_is_said_in_words(page: Any) -> None:
    picture = page.locator(".headmap .picture")
    cell = picture.bounding_box()["width"] / len(WORDS)
    picture.hover(position={"x": 1.5 * cell, "y": 20.5 * cell})
    page.get_by_text(f"“.” does not see “h”, which is outside of its window of {WINDOW} tokens").wait_for()
    picture.hover(position={"x": 20.5 * cell, "y": 1.5 * cell})
    page.get_by_text("“h” does not see “.”, which comes later").wait_for()


def test_the_sink_has_its_share(page: Any, experts_runs: Path) -> None:
    run = gg.load(experts_runs / "experts")
    sinks = sinks_of(trace(run.model, run.tokenizer.encode(WORDS)))
    assert sinks is not None
    share = f"{round(100 * float(sinks[0, 1, -1]))}%"
    page.get_by_text(f"{share} goes to the sink of the head").wait_for()
    page.get_by_text(f"and {share} to the sink").wait_for()
    assert page.locator(".sink canvas").get_attribute("height") == str(len(WORDS))
    page.get_by_text("the numbers: q · k").click()
    page.get_by_text(f"over the last {WINDOW} tokens and the sink").wait_for()


def test_the_experts_of_each_token(page: Any, experts_runs: Path) -> None:
    run = gg.load(experts_runs / "experts")
    routes = routes_of(trace(run.model, run.tokenizer.encode(WORDS)))
    panel = page.get_by_role("region", name="Experts")
    for layer in range(2):
        cells = panel.locator("tr").nth(layer).locator("td").all_inner_texts()
        pairs = zip(routes.experts[layer, -1].tolist(), routes.weights[layer, -1].tolist(), strict=True)
        assert cells == [f"expert {expert} {round(100 * weight)}%" for expert, weight in pairs]
    pixels = "canvas => [...canvas.getContext('2d').getImageData(0, 20, 4, 1).data].filter((_, at) => at % 4 === 0)"
    drawn = panel.locator("canvas").nth(1).evaluate(pixels)
    assert [red < 255 for red in drawn] == [bool(share) for share in routes.shares[1, -1].tolist()]
    box = panel.locator(".picture").first.bounding_box()
    panel.locator(".picture").first.click(position={"x": 5, "y": 3.5 * box["height"] / len(WORDS)})
    panel.get_by_role("heading", name="“·”: its experts in each block").wait_for()
    assert "token=3" in page.url
    assert f"expert {int(routes.experts[0, 3, 0])} " in panel.locator("td").first.inner_text()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)], ids=["wide and light", "narrow and dark"])
def test_the_rules_of_wcag(
    experts_runs: Path,
    serve: Callable[[Path], Site],
    open_page: OpenPage,
    check_wcag: Callable[[Any, int], None],
    width: int,
    dark: bool,
) -> None:
    page = open_page(f"{serve(experts_runs).address}{ADDRESS}", width=width, dark=dark)
    page.locator(".bars tr").first.wait_for()
    check_wcag(page, width)


def test_the_view_of_neurons_says_that_the_mlps_are_experts(
    experts_runs: Path, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    page = open_page(f"{serve(experts_runs).address}/heads?run=experts&part=neurons")
    page.get_by_text("The MLPs of this model are experts, and this view cannot read their neurons.").wait_for()
    assert page.get_by_text("has no MLP").count() == 0
