"""Inside for an encoder-decoder: cross-attention with the source on one axis and the target on the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import glassgpt as gg
from glassgpt.inspection.pairs import look_at_pair

OpenPage = Callable[..., Any]
Site = Any  # a running server, of the fixtures
SETTINGS = {
    "model.n_layer": 2, "model.n_head": 2, "model.n_embd": 16, "model.block_size": 16, "schedule.warmup_steps": 1,
    "training.batch_tokens": 64, "training.max_steps": 4, "machine.device": "cpu", "evaluation.tokens": 100,
    "evaluation.sample_every": 4, "checkpoint.snapshots": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def pair_runs(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a small Transformer, which is to reverse words."""
    root = tmp_path_factory.mktemp("pairs") / "runs"
    root.mkdir()
    (source := root.parent / "sentences.txt").write_text(text, encoding="utf-8")
    gg.train("reverse-tiny", data=source, run=root / "pairs", settings=SETTINGS, listener=gg.Listener())
    return root


@pytest.fixture
def page(pair_runs: Path, serve: Callable[[Path], Site], open_page: OpenPage) -> Any:
    found = open_page(f"{serve(pair_runs).address}/inside?run=pairs&text=homes&target=semoh&head=1.0&token=2")
    found.locator(".headmap canvas").wait_for()
    return found


def shape(page: Any) -> tuple[str | None, str | None]:
    canvas = page.locator(".headmap .picture canvas")
    return canvas.get_attribute("height"), canvas.get_attribute("width")


def test_cross_attention_is_that_of_the_model(page: Any, pair_runs: Path) -> None:
    run = gg.load(pair_runs / "pairs")
    seen = look_at_pair(run.encoder_decoder, run.tokenizer, "homes", "semoh")
    row = seen.cross[1, 0, 2]
    told = page.locator("main h1 + p").inner_text()
    assert told.startswith(f"To write “m”, head 1.0 gives {round(100 * float(row.max()))}% of its attention to")
    assert shape(page) == ("6", "6")
    keys = page.locator(".headmap .keys span").all_inner_texts()
    queries = page.locator(".headmap .queries span").all_inner_texts()
    assert (keys[:5], queries[:5]) == (list("homes"), list("semoh"))
    p = seen.logits[2].softmax(dim=-1)
    panel = page.get_by_role("region", name="What is written here")
    assert panel.locator("td.number").first.inner_text() == f"{round(100 * float(p.max()))}%"
    panel.get_by_text(f"the target has “m”, loss {-float(p[seen.outputs[2]].log()):.2f}").wait_for()


def test_without_a_target_the_model_writes_it(page: Any, pair_runs: Path) -> None:
    run = gg.load(pair_runs / "pairs")
    page.get_by_role("textbox", name="Target").fill("")
    page.get_by_role("heading", name="target, written by the model").wait_for()
    written = look_at_pair(run.encoder_decoder, run.tokenizer, "homes").outputs
    assert page.get_by_role("group", name="The target, in tokens").locator("button").count() == len(written)
    page.get_by_role("textbox", name="Source").fill("cat")
    page.get_by_role("group", name="The source, in tokens").locator("button").nth(3).get_by_text("endoftext").wait_for()
    written = look_at_pair(run.encoder_decoder, run.tokenizer, "cat").outputs
    page.wait_for_function(
        "rows => document.querySelector('.headmap .picture canvas').height === rows", arg=len(written)
    )
    assert shape(page) == (str(len(written)), "4")


def test_the_parts_can_be_chosen(page: Any) -> None:
    parts = page.get_by_role("group", name="Attention", exact=True)
    parts.get_by_role("button", name="within the source").click()
    page.get_by_role("group", name="The target, in tokens").wait_for(state="detached")
    alpha = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    assert set(page.locator(".headmap .picture canvas").evaluate(alpha)[3::4]) == {255}
    parts.get_by_role("button", name="within the target").click()
    page.get_by_role("group", name="The source, in tokens").wait_for(state="detached")
    hidden = [value == 0 for value in page.locator(".headmap .picture canvas").evaluate(alpha)[3::4]]
    assert hidden == [key > query for query in range(6) for key in range(6)]
    parts.get_by_role("button", name="cross-attention").click()
    page.get_by_role("heading", name="Which source tokens").wait_for()


def test_arrow_keys_and_clicks_move_through_the_target(page: Any) -> None:
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name="what is written after “m”").wait_for()
    box = page.locator(".headmap .picture").bounding_box()
    page.locator(".headmap .picture").click(position={"x": box["width"] * 4.5 / 6, "y": box["height"] * 1.5 / 6})
    page.get_by_text("“e” gives").wait_for()
    assert "token=1" in page.url and "key=4" in page.url
    page.get_by_role("button", name="head 0.1").click()
    page.get_by_role("heading", name="head 0.1, cross-attention").wait_for()


def test_what_each_layer_of_the_decoder_would_write(page: Any, pair_runs: Path) -> None:
    run = gg.load(pair_runs / "pairs")
    seen = look_at_pair(run.encoder_decoder, run.tokenizer, "homes", "semoh")
    grid = page.locator(".lens-grid")
    rows = grid.locator("tbody tr")
    assert [row.locator("th").inner_text() for row in rows.all()] == ["embedding", "block 0", "output"]
    names = [run.tokenizer.decode([int(id)]) for id in seen.lens.ids[-1, :, 0]]
    shown = rows.nth(2).locator("td").all_inner_texts()
    assert [text for text, name in zip(shown, names, strict=True) if name.isalpha()] == [
        name for name in names if name.isalpha()
    ]
    assert grid.locator("tfoot td").all_inner_texts()[:5] == list("semoh")
    assert grid.locator("thead [aria-pressed=true]").inner_text() == "e"  # what step 2 has read
    grid.locator("thead button").nth(4).click()
    page.get_by_role("heading", name="what is written after “o”").wait_for()


def test_the_opening_pair_and_the_film(pair_runs: Path, serve: Callable[[Path], Site], open_page: OpenPage) -> None:
    page = open_page(f"{serve(pair_runs).address}/inside?run=pairs")
    page.locator(".headmap canvas").wait_for()
    assert page.get_by_role("textbox", name="Source").input_value()  # of the last sample
    page.keyboard.press("[")
    page.wait_for_function("() => location.search.includes('step=')")


def test_a_source_that_is_too_long_is_refused(
    pair_runs: Path, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    page = open_page(f"{serve(pair_runs).address}/inside?run=pairs&text={'a' * 20}", expected="400 (Bad Request)")
    page.get_by_text("the text has 21 tokens, more than the model's block_size of 16").wait_for()


def test_a_view_of_one_text_refuses(pair_runs: Path, serve: Callable[[Path], Site], open_page: OpenPage) -> None:
    page = open_page(f"{serve(pair_runs).address}/loss?run=pairs&text=homes")
    page.get_by_text("and pairs is an encoder-decoder: see Inside").wait_for()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)], ids=["wide and light", "narrow and dark"])
@pytest.mark.parametrize("part", ["cross", "encoder", "decoder"])
def test_the_rules_of_wcag(
    pair_runs: Path,
    serve: Callable[[Path], Site],
    open_page: OpenPage,
    check_wcag: Callable[[Any, int], None],
    part: str,
    width: int,
    dark: bool,
) -> None:
    page = open_page(f"{serve(pair_runs).address}/inside?run=pairs&text=homes&part={part}", width=width, dark=dark)
    page.locator(".headmap canvas").wait_for()
    check_wcag(page, width)
