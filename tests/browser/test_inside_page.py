"""Inside in a browser: whom a token hears, what comes next, and the film of the checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import torch

import glassgpt as gg
from glassgpt.inspection.attention import heads_of
from glassgpt.inspection.trace import trace

OpenPage = Callable[..., Any]
Hold = Callable[[Any, str], Callable[[], None]]
Site = Any  # a running server, of the fixtures
WORDS = "The cat sat on a mat."
ADDRESS = f"/inside?run=small&text={quote(WORDS)}"


def state(page: Any, name: str) -> list[str]:
    return parse_qs(urlsplit(page.url).query).get(name, [])


def picture(page: Any) -> str:
    """The pixels of the map of the chosen head."""
    return page.locator(".headmap canvas").evaluate("canvas => canvas.toDataURL()")


@pytest.fixture
def page(site: Site, open_page: OpenPage) -> Any:
    found = open_page(f"{site.address}{ADDRESS}")
    found.locator(".headmap canvas").wait_for()
    found.locator(".bars tr").first.wait_for()
    return found


def test_the_answer_is_that_of_the_model(page: Any, site: Site) -> None:
    run = gg.load(site.runs / "small")
    ids = run.tokenizer.encode(WORDS)
    seen = trace(run.model, ids)
    page.get_by_role("button", name="head 1.1").click()
    page.get_by_role("heading", name="head 1.1").wait_for()
    row = heads_of(seen)[1, 1, -1]
    told = page.locator("main h1 + p").inner_text()
    assert f"gives {round(100 * float(row.max()))}% of the attention" in told
    probabilities = seen.logits[0, -1].softmax(dim=-1)
    shares = page.locator(".bars td.number").all_inner_texts()
    assert shares[0] == f"{round(100 * float(probabilities.max()))}%"
    assert torch.is_tensor(probabilities) and len(shares) == 8


def test_a_click_on_a_head_changes_the_map(page: Any) -> None:
    before = picture(page)
    page.get_by_role("button", name="head 1.0").click()
    page.get_by_role("heading", name="head 1.0").wait_for()
    assert state(page, "head") == ["1.0"]
    assert picture(page) != before


def test_arrow_keys_move_through_the_text(page: Any) -> None:
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => location.search.includes('token=')")
    page.get_by_role("heading", name="what comes next, after “t”").wait_for()
    assert state(page, "token") == [str(len(WORDS) - 2)]
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => !location.search.includes('token=')")


def test_a_heading_names_the_token_whose_answer_is_below_it(page: Any, hold: Hold) -> None:
    ahead, lens = page.get_by_label("What comes next"), page.get_by_label("Prediction layer by layer")
    release = hold(page, "**/api/next")
    page.keyboard.press("ArrowLeft")
    page.locator(".tokens [aria-pressed=true]").get_by_text("t", exact=True).wait_for()
    assert ahead.locator("h2").inner_text() == "what comes next, after “.”"
    assert lens.locator("h3").inner_text().startswith("after “.”")
    before = ahead.locator(".bars").inner_text()
    release()
    ahead.get_by_role("heading", name="what comes next, after “t”").wait_for()
    lens.get_by_role("heading", name="after “t”").wait_for()
    assert ahead.locator(".bars").inner_text() != before


def test_nothing_of_an_old_text_stays_beside_a_new_one(page: Any, hold: Hold) -> None:
    page.get_by_text("the numbers: q · k").click()
    page.locator(".vector").nth(2).wait_for()
    page.get_by_text("change the text").click()
    releases = [hold(page, f"**/api/{name}") for name in ("head", "next", "lens")]
    page.get_by_label("Text", exact=True).fill(WORDS.replace("cat", "dog"))  # as many tokens
    page.locator(".tokens button").nth(4).get_by_text("d", exact=True).wait_for()
    for part in (".vector", ".bars", ".lens", ".lens-grid"):
        assert page.locator(part).count() == 0
    for release in releases:
        release()
    page.locator(".vector").nth(2).wait_for()


def test_keys_lead_to_the_heads_and_to_the_lens(page: Any) -> None:
    page.keyboard.press("h")
    page.wait_for_function("() => document.activeElement.closest('#heads') !== null")
    page.keyboard.press("l")
    page.wait_for_function("() => document.activeElement.closest('#lens') !== null")


def test_the_slider_and_the_film_go_through_the_checkpoints(page: Any, site: Site) -> None:
    cards = page.evaluate("() => fetch('/api/runs').then(answer => answer.json())")["runs"]
    (steps,) = (card["steps"] for card in cards if card["id"] == "small")
    assert len(steps) > 3
    last = picture(page)
    page.keyboard.press("[")
    page.wait_for_function("() => location.search.includes('step=')")
    page.locator(".film input").fill("0")
    page.wait_for_function("before => document.querySelector('.headmap canvas').toDataURL() !== before", arg=last)
    assert state(page, "step") == ["0"]
    page.get_by_role("button", name="play all checkpoints").click()
    page.wait_for_function(f"() => new URLSearchParams(location.search).get('step') === '{steps[-1]}'")
    page.wait_for_function("before => document.querySelector('.headmap canvas').toDataURL() === before", arg=last)


def test_a_head_that_is_off_changes_the_prediction(page: Any) -> None:
    page.get_by_role("button", name="head 0.1").first.click()
    page.get_by_role("group", name="Switch off").get_by_role("button", name="head 0.1").click()
    page.get_by_text("with nothing switched off").wait_for()
    page.get_by_role("columnheader", name="change").wait_for()
    assert state(page, "edits") == ["blocks.0.head.1"]


def test_temperature_0_is_the_most_likely_token(page: Any) -> None:
    page.get_by_label("temperature").fill("0")
    page.wait_for_function("() => document.querySelector('.bars td.number').innerText === '100%'")


def test_the_numbers_of_a_head(page: Any) -> None:
    page.get_by_text("the numbers: q · k").click()
    page.get_by_text("after the softmax over all earlier tokens").wait_for()
    assert page.locator(".vector").count() == 3


def test_html_in_a_text_is_text(site: Site, open_page: OpenPage) -> None:
    page = open_page(
        f"{site.address}/inside?run=small&text={quote('<img src=x onerror=alert(1)>')}", expected="Failed to load"
    )
    page.get_by_role("alert").wait_for()  # the alphabet of the run lacks some of it
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize(
    "query", ["run=nothing", "run=small&step=999", "run=small&head=9.9&token=99999&edits=x", "run=small&text=%C3%BC"]
)
def test_a_wrong_address_shows_a_sentence_or_the_nearest_view(site: Site, open_page: OpenPage, query: str) -> None:
    page = open_page(f"{site.address}/inside?{query}", expected="Failed to load resource")
    page.locator("main h1, main [role=alert]").first.wait_for()


def test_every_key_does_what_the_help_says(page: Any, hold: Hold) -> None:
    def step() -> int:
        return int(page.locator(".film input").input_value())

    at = step()
    page.locator(".film input").focus()  # the slider leaves the keys that it does not use
    page.keyboard.press("[")
    page.keyboard.press("[")  # before the first answer is there
    page.wait_for_function(f"() => document.querySelector('.film input').value === '{at - 2}'")
    page.keyboard.press("Alt+]")  # as it is typed on many keyboards
    page.wait_for_function(f"() => document.querySelector('.film input').value === '{at - 1}'")
    page.locator(".film input").fill("0")
    page.locator(".film").get_by_text("1 of ").wait_for()
    page.locator(".tokens button").nth(4).click()
    release = hold(page, "**/api/inside")  # the film waits for its second frame, so that it is seen to play
    page.keyboard.press("Space")  # the token is chosen already: to press it would do nothing
    page.get_by_role("button", name="pause").wait_for()
    release()
    page.get_by_role("button", name="play all checkpoints").wait_for()
    page.locator(".film").get_by_text(f"{at + 1} of ").wait_for()
    assert (step(), state(page, "token")) == (at, ["4"])
    page.keyboard.press("?")
    told = page.get_by_role("dialog").locator("kbd").all_inner_texts()
    assert told == ["← →", "[ ]", "space", "h", "l", "?"]


def test_from_a_damaged_checkpoint_the_slider_leads_to_another(
    runs_folder: Path, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    (runs_folder / "small/checkpoints/step-00000060/model.safetensors").write_bytes(b"?")
    page = open_page(f"{serve(runs_folder).address}{ADDRESS}&step=60", expected="400")
    page.get_by_role("alert").get_by_text("is damaged").wait_for()
    page.get_by_role("slider", name="checkpoint").press("ArrowLeft")
    page.locator(".headmap canvas").wait_for()
    page.get_by_role("alert").wait_for(state="detached")


def test_an_imported_model_is_shown_with_a_sentence(
    runs_folder: Path, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    (runs_folder / "small/samples.jsonl").unlink()
    (runs_folder / "small/metrics.jsonl").unlink()
    config = runs_folder / "small/config.toml"
    config.write_text(config.read_text().replace('stage = "pretrain"', 'stage = "none"'))
    page = open_page(f"{serve(runs_folder).address}/inside?run=small", expected="400")  # this one cannot be read
    page.get_by_role("alert").wait_for()
    assert page.locator("#words").input_value() == "Paris is the capital of France."


def test_a_link_to_a_checkpoint_that_is_gone(
    runs_folder: Path, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    address = f"{serve(runs_folder).address}{ADDRESS}&step=7"
    page = open_page(address, expected="400")
    page.get_by_role("alert").get_by_text("has no checkpoint '7'").wait_for()
    assert "not one of the 8 checkpoints" in page.locator(".film").inner_text()
    for folder in sorted((runs_folder / "small/checkpoints").iterdir())[:-1]:
        shutil.rmtree(folder)
    page.goto(address)
    page.get_by_role("button", name="show step 60, the only checkpoint").click()
    page.locator(".headmap canvas").wait_for()
