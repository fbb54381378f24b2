"""Neurons in a browser: a map of all, and what excites the one that is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from serving import train_without_mlp

import glassgpt as gg
from glassgpt.data.dataset_cache import dataset_at_hand
from glassgpt.inspection.neurons import NeuronSummary, exciting_texts, neuron_summary

OpenPage = Callable[..., Any]
Hold = Callable[[Any, str], Callable[[], None]]
Site = Any  # a running server, of the fixtures
WORDS = "The cat sat on a mat. The dogs ran home."
PAGE = "heads?run=small&part=neurons"


def ids_of(site: Site, step: int | str = "best") -> tuple[Any, list[int]]:
    """The model and the text that the page reads. Called before a page is opened, as torch builds one at a time."""
    run = gg.load(site.runs / "small", checkpoint=step)
    dataset = dataset_at_hand(run.manifest, run.tokenizer)
    assert dataset is not None
    return run.model, dataset.val.slice(0, len(dataset.val)).tolist()


def summary(site: Site, step: int | str = "best") -> NeuronSummary:
    model, ids = ids_of(site, step)
    return neuron_summary(model, [ids])


def peaks(page: Any) -> list[str]:
    return list(page.locator(".passages .number").all_inner_texts())


def written(value: Any) -> str:
    """An activation as the page writes it: with a minus sign, and none before a zero."""
    return f"{round(float(value), 2) + 0.0:.2f}".replace("-", "−")


def chosen(page: Any) -> list[str]:
    return parse_qs(urlsplit(page.url).query).get("neuron", [])


def test_the_most_selective_neuron_is_shown_first(site: Site, open_page: OpenPage) -> None:
    found = summary(site)
    best = int(found.selectivity[0].argmax())
    page = open_page(f"{site.address}/{PAGE}")
    page.get_by_role("heading", name="What excites this neuron?").wait_for()
    page.locator(".passages li").first.wait_for()
    assert chosen(page) == [f"0.{best}"]  # a link to this view shows the same neuron
    share = f"{round(100 * float(found.active[0, best]))}%"
    assert f"Neuron 0.{best} is active on {share} of the tokens" in page.inner_text("main").replace("\n", " ")
    rows = page.locator(".top-neurons tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == [f"0.{n}" for n in found.selectivity[0].argsort(descending=True)[:12]]


def test_choosing_a_neuron_shows_its_texts(site: Site, open_page: OpenPage) -> None:
    model, ids = ids_of(site)
    expected = {n: f"{exciting_texts(model, ids, 1, n, 1)[0].value:.2f}" for n in (5, 6, 38)}
    page = open_page(f"{site.address}/{PAGE}&neuron=1.5")
    page.get_by_role("heading", name="neuron 1.5", exact=True).wait_for()
    assert peaks(page)[0] == expected[5]
    page.get_by_role("slider", name="Neurons of block 1").press("ArrowRight")
    page.get_by_role("heading", name="neuron 1.6", exact=True).wait_for()
    assert peaks(page)[0] == expected[6]
    page.keyboard.press("ArrowDown")  # the map has 32 columns
    page.get_by_role("heading", name="neuron 1.38", exact=True).wait_for()
    assert (peaks(page)[0], chosen(page)) == (expected[38], ["1.38"])
    box = page.locator(".neuron-map canvas").bounding_box()
    page.mouse.click(box["x"] + 5.5 * box["width"] / 32, box["y"] + 0.5 * box["height"] / 4)
    page.get_by_role("heading", name="neuron 1.5", exact=True).wait_for()
    assert peaks(page)[0] == expected[5]
    page.get_by_label("block", exact=True).select_option("0")
    page.get_by_role("slider", name="Neurons of block 0").wait_for()
    page.wait_for_function("() => /neuron=0\\.\\d/.test(location.search)")


def test_the_tokens_of_a_passage_have_their_activations(site: Site, open_page: OpenPage) -> None:
    model, ids = ids_of(site)
    (best, *_) = exciting_texts(model, ids, 0, 3, 8, reach=16)
    page = open_page(f"{site.address}/{PAGE}&neuron=0.3")
    tokens = page.locator(".passages .tokens").first.get_by_role("button")
    tokens.first.wait_for()
    names = tokens.evaluate_all("all => all.map(one => one.ariaLabel)")
    assert [name.rpartition(" ")[2] for name in names] == [written(value) for value in best.values]
    tokens.nth(0).click()
    assert peaks(page)[0] == written(best.values[0])


def test_the_slider_shows_the_same_neuron_at_another_checkpoint(site: Site, open_page: OpenPage) -> None:
    told = {}
    for step in (0, 60):
        model, ids = ids_of(site, step)
        told[step] = f"{exciting_texts(model, ids, 0, 7, 1)[0].value:.2f}"
    page = open_page(f"{site.address}/{PAGE}&neuron=0.7&step=60")
    for key, step in (("", 60), ("Home", 0), ("End", 60)):
        if key:
            page.get_by_label("checkpoint", exact=True).press(key)
        page.wait_for_function(f"() => document.querySelector('.passages .number')?.innerText === '{told[step]}'")
        assert chosen(page) == ["0.7"]


def test_the_slider_stays_where_it_was_put(site: Site, open_page: OpenPage, hold: Hold) -> None:
    page = open_page(f"{site.address}/{PAGE}&neuron=0.7&step=60")
    page.locator(".passages li").first.wait_for()
    slider = page.get_by_label("checkpoint", exact=True)
    release = hold(page, "**/api/neurons")
    slider.press("Home")
    page.wait_for_url("**step=0")
    assert slider.input_value() == "0"
    page.locator(".film").get_by_text("step 60").wait_for()  # whose figures are still shown
    slider.press("End")  # moves it, as it is at its start
    page.wait_for_url("**step=60")
    release()


def test_a_text_of_ones_own(site: Site, open_page: OpenPage, hold: Hold) -> None:
    page = open_page(f"{site.address}/{PAGE}&neuron=0.7", expected="400 (Bad Request)")
    page.get_by_text("of its validation text").wait_for()
    page.get_by_role("button", name="my own text").click()
    page.get_by_text("Type or paste a text.").wait_for()
    release = hold(page, "**/api/neuron")  # the passages of the new text come after its figures
    page.get_by_label("Your text").fill(WORDS)
    page.get_by_text(f"all {len(WORDS)} tokens of your text").wait_for()
    assert page.locator(".passages").count() == 0
    release()
    page.locator(".passages li").first.wait_for()
    shown = page.locator(".passages .tokens").first.inner_text().replace("\n", "").replace("·", " ")
    assert shown in WORDS


@pytest.mark.parametrize("late", ["neuron", "neurons"])
def test_the_error_of_a_text_goes_with_the_text(site: Site, open_page: OpenPage, hold: Hold, late: str) -> None:
    page = open_page(f"{site.address}/{PAGE}&neuron=0.7&own=1&text={quote(WORDS)}", expected="400 (Bad Request)")
    page.locator(".passages li").first.wait_for()
    release = hold(page, f"**/api/{late}")  # the page asks two questions about a text, and either may fail first
    page.get_by_label("Your text").fill("a 字")
    page.get_by_role("alert").get_by_text("character '字'").wait_for()
    release()
    page.locator(".neuron-map").wait_for(state="detached")
    release = hold(page, "**/api/neuron")
    page.get_by_role("button", name="the run's text").click()
    page.get_by_text("of its validation text").wait_for()
    page.locator(".neuron-map").wait_for()
    assert page.get_by_role("alert").count() == 0
    release()


def test_the_error_of_one_question_goes_with_the_answer_to_the_other(
    site: Site, open_page: OpenPage, hold: Hold
) -> None:
    page = open_page(f"{site.address}/{PAGE}&neuron=0.7&own=1&text={quote(WORDS)}", expected="400 (Bad Request)")
    page.locator(".passages li").first.wait_for()
    figures = hold(page, "**/api/neurons")
    page.get_by_label("Your text").fill("a 字")
    page.get_by_role("alert").get_by_text("character '字'").wait_for()  # of the passages
    passages = hold(page, "**/api/neuron")
    page.get_by_label("Your text").fill("The dogs")
    page.wait_for_url("**text=The+dogs")
    figures()
    page.get_by_text("all 8 tokens of your text").wait_for()
    assert page.get_by_role("alert").count() == 0
    passages()
    page.locator(".passages li").first.wait_for()


def test_switching_a_neuron_off_leads_inside(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/{PAGE}&neuron=1.9")
    page.get_by_role("link", name="switch neuron 1.9 off in this text").click()
    page.get_by_role("button", name="neuron 1.9", pressed=True).wait_for()
    assert urlsplit(page.url).path == "/inside"
    assert parse_qs(urlsplit(page.url).query)["edits"] == ["blocks.1.neuron.9"]
    page.get_by_text("with nothing switched off").wait_for()


def test_from_heads_to_neurons_and_back(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/heads?run=small")
    page.locator(".all-heads tbody tr").first.wait_for()
    page.get_by_role("button", name="neurons", exact=True).click()
    page.locator(".passages li").first.wait_for()
    page.get_by_role("button", name="how often").click()
    page.get_by_text("Full colour is active on every token").wait_for()
    page.get_by_role("button", name="heads", exact=True).click()
    page.locator(".all-heads tbody tr").first.wait_for()


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_page_does_not_scroll_sideways(site: Site, open_page: OpenPage, dark: bool) -> None:
    page = open_page(f"{site.address}/{PAGE}&own=1&text={quote(WORDS * 5)}", width=400, dark=dark)
    page.locator(".passages li").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_section_of_the_ladder_without_neurons_says_so(
    text: str, tmp_path: Path, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    train_without_mlp(tmp_path / "runs" / "section", text)
    page = open_page(f"{serve(tmp_path / 'runs').address}/heads?run=section&part=neurons")
    page.get_by_text("This model has no MLP, so it has no neurons").wait_for()
    assert page.get_by_role("slider").count() == page.get_by_role("alert").count() == 0
