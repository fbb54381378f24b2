"""Inside for an encoder: attention to both sides, and what stands in a hidden place. Views of losses refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import glassgpt as gg
from glassgpt.inspection.attention import heads_of
from glassgpt.inspection.guesses import guesses_of
from glassgpt.inspection.trace import trace

OpenPage = Callable[..., Any]
Site = Any  # a running server, of the fixtures
WORDS = "The cat [MASK]at on a mat."
ADDRESS = f"/inside?run=bert&text={quote(WORDS)}"
SETTINGS = {
    "model.n_layer": 2, "model.n_head": 2, "model.n_embd": 16, "model.block_size": 32, "schedule.warmup_steps": 1,
    "training.batch_tokens": 64, "training.max_steps": 4, "machine.device": "cpu", "evaluation.tokens": 100,
    "checkpoint.snapshots": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder_runs(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a small BERT on characters."""
    root = tmp_path_factory.mktemp("encoder") / "runs"
    root.mkdir()
    (source := root.parent / "sentences.txt").write_text(text, encoding="utf-8")
    gg.train("bert-tiny", data=source, run=root / "bert", settings=SETTINGS, listener=gg.Listener())
    return root


@pytest.fixture
def page(encoder_runs: Path, serve: Callable[[Path], Site], open_page: OpenPage) -> Any:
    found = open_page(f"{serve(encoder_runs).address}{ADDRESS}&token=8&head=1.1")
    found.locator(".headmap canvas").first.wait_for()
    found.locator(".bars tr").first.wait_for()
    return found


def test_a_token_hears_those_after_it(page: Any, encoder_runs: Path) -> None:
    run = gg.load(encoder_runs / "bert")
    ids = run.tokenizer.encode(WORDS, allowed_special={"[MASK]"})
    row = heads_of(trace(run.model, ids))[1, 1, 8]
    assert f"gives {round(100 * float(row.max()))}% of the attention" in page.locator("main h1 + p").inner_text()
    alpha = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    pixels = page.locator(".headmap .picture canvas").evaluate(alpha)
    assert set(pixels[3::4]) == {255}  # every token sees every other one
    page.locator(".headmap .picture").click(position={"x": 200, "y": 5})
    page.wait_for_function("() => new URLSearchParams(location.search).get('token') === '0'")
    assert "key=0" not in page.url  # a key after the query is chosen as it is


def test_what_stands_in_a_hidden_place(page: Any, encoder_runs: Path) -> None:
    run = gg.load(encoder_runs / "bert")
    ids = run.tokenizer.encode(WORDS, allowed_special={"[MASK]"})
    mask_id = run.tokenizer.special_tokens["[MASK]"]
    panel = page.get_by_role("region", name="What stands here")
    panel.get_by_text("The text hides this token").wait_for()
    best = guesses_of(run.model, ids, mask_id, [8])
    assert panel.locator("th.mono").first.inner_text() == run.tokenizer.decode(best.ids[0, :1].tolist()).replace(
        " ", "·"
    )
    assert panel.locator("td.number").first.inner_text() == f"{round(100 * float(best.probabilities[0, 0]))}%"
    page.get_by_role("button", name="c, id").first.click()
    panel.get_by_text("“c” is hidden for this guess").wait_for()
    own = guesses_of(run.model, ids, mask_id, [4]).own_probabilities
    panel.get_by_text(f"the text has “c”, probability {round(100 * float(own[0]))}%").wait_for()
    page.get_by_role("heading", name="“c”, hidden: the most likely tokens in each layer").wait_for()


def test_it_opens_with_the_hidden_text_of_the_last_sample(
    encoder_runs: Path, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    """The text as the model was asked, with the first hidden token chosen: it would agree with what it found."""
    page = open_page(f"{serve(encoder_runs).address}/inside?run=bert")
    sample = json.loads((encoder_runs / "bert" / "samples.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    asked = sample["prompt"].removesuffix("\n→\n").strip()[:32]
    page.get_by_role("heading", name="what stands in the place of “[MASK]”").wait_for()
    page.locator(".lens-grid").wait_for()
    shown = page.locator(".lens-grid thead button")
    assert shown.count() == len(asked) and shown.nth(asked.index("▢")).get_attribute("aria-pressed") == "true"
    assert [shown.nth(at).inner_text() == "[MASK]" for at in range(len(asked))] == [c == "▢" for c in asked]
    assert page.locator(".sliders").count() == 0  # an encoder does not draw what it writes
    last = len(asked) - 1
    shown.nth(last).click()
    page.wait_for_function(f"() => new URLSearchParams(location.search).get('token') === '{last}'")


def test_a_head_that_is_off_changes_the_guess(page: Any) -> None:
    page.get_by_role("group", name="Switch off").get_by_role("button", name="head 1.1").click()
    page.get_by_role("columnheader", name="change").wait_for()
    assert page.get_by_text("nats per token").count() == 0


@pytest.mark.parametrize("path", ["/loss?run=bert&text=The%20cat", "/heads?run=bert", "/heads?run=bert&part=neurons"])
def test_a_view_of_losses_refuses_in_a_sentence(
    encoder_runs: Path, serve: Callable[[Path], Site], open_page: OpenPage, path: str
) -> None:
    """And nothing else: no film, no text to type, nothing to save."""
    page = open_page(f"{serve(encoder_runs).address}{path}")
    page.get_by_text("predict what comes next in a text, and bert is an encoder: see Inside").wait_for()
    assert page.get_by_role("slider").count() == page.get_by_role("textbox").count() == 0
    assert page.get_by_role("button", name="save").count() == 0
    page.get_by_role("main").get_by_role("link", name="Inside").click()
    page.get_by_role("heading", name="Whom does this token hear?").wait_for()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)], ids=["wide and light", "narrow and dark"])
def test_the_rules_of_wcag(
    encoder_runs: Path,
    serve: Callable[[Path], Site],
    open_page: OpenPage,
    check_wcag: Callable[[Any, int], None],
    width: int,
    dark: bool,
) -> None:
    page = open_page(f"{serve(encoder_runs).address}{ADDRESS}", width=width, dark=dark)
    page.locator(".bars tr").first.wait_for()
    check_wcag(page, width)
