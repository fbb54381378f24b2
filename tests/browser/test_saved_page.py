"""Every view can be saved as one file, which shows the same from the disk, without a network and without a server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from serving import served
from test_accessibility import VIEWS, WORDS
from test_runs_page import append, step_line

from glassgpt.training.metrics import cut_back

OpenPage = Callable[..., Any]
Site = Any  # a running server, of the fixtures
SENTENCE = "this saved page holds only what was seen before it was saved"
HOSTILE = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'><!--"
INSIDE = f"/inside?run=small&text={WORDS}"
# The words that a page shows, without the lists of all runs, and the pixels of its pictures.
PICTURE = """() => {
  const main = document.querySelector("main").cloneNode(true);
  for (const part of main.querySelectorAll(".side, select, .film")) part.remove();
  const canvases = [...document.querySelectorAll("main canvas")].map((canvas) => canvas.toDataURL());
  return { words: main.textContent, canvases };
}"""


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """`save(page)` saves the view that a page shows, and is the file."""

    def save_view(page: Any, button: str = "save") -> Path:
        with page.expect_download() as download:
            page.get_by_role("button", name=button, exact=True).click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        return file

    return save_view


@pytest.fixture
def open_file(open_page: OpenPage) -> Callable[..., Any]:
    """`open_file(file)` opens it in a window without a network; the test fails if it asks for anything else."""

    def open_saved(file: Path, address: str = "", **options: Any) -> Any:
        page = open_page("about:blank", origin="file:///", **options)
        page.context.set_offline(True)
        page.goto(file.as_uri() + address)
        return page

    return open_saved


def held(file: Path) -> dict[str, Any]:
    """What a saved page holds."""
    found = re.search(r'<script type="application/json" id="saved">(.*)</script>', file.read_text())
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.mark.parametrize("view", VIEWS)
def test_a_saved_view_shows_the_same_offline(
    view: str, site: Site, open_page: OpenPage, save: Callable[..., Path], open_file: Callable[..., Any]
) -> None:
    path, drawn = VIEWS[view]
    live = open_page(f"{site.address}{path}")
    live.locator(drawn).first.wait_for()
    file = save(live)
    live.get_by_role("status").filter(has_text=f"Saved {file.name}, ").wait_for()
    shown, _, question = path.strip("/").partition("?")
    assert file.name.startswith(f"glassgpt-{shown}{'-small' if 'run=small' in question else ''}")
    assert file.suffix == ".html"
    assert file.stat().st_size < 600_000
    page = open_file(file)
    page.locator(drawn).first.wait_for()
    picture = live.evaluate(PICTURE)
    page.wait_for_function(f"words => ({PICTURE})().words === words", arg=picture["words"])
    page.wait_for_function(f"all => ({PICTURE})().canvases.join() === all.join()", arg=picture["canvases"])
    assert page.title() == live.title()
    note = page.locator(".saved-note").inner_text()
    assert (
        ("run small" in note and "glassgpt look small" in note) if "run=small" in question else "glassgpt look" in note
    )
    assert page.get_by_role("button", name="save").count() == 0
    rules(page)


def rules(page: Any) -> None:
    """Fails if the page breaks a rule of WCAG 2 A and AA."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    found = axe.Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    assert not [rule["id"] for rule in found.response["violations"]]


def test_a_saved_page_answers_what_was_seen_and_nothing_else(
    site: Site, open_page: OpenPage, save: Callable[..., Path], open_file: Callable[..., Any]
) -> None:
    live = open_page(f"{site.address}{INSIDE}&token=3")
    live.locator(".bars tr").first.wait_for()
    live.get_by_role("group", name="The text, in tokens").get_by_role("button").last.click()
    live.get_by_role("heading", name="what comes next, after “.”").wait_for()
    live.locator(".bars tr").first.wait_for()
    page = open_file(save(live))
    page.locator(".headmap canvas").wait_for()
    before = page.evaluate(PICTURE)["canvases"][-1]
    page.get_by_role("button", name="head 1.0").click()
    page.wait_for_function(f"before => ({PICTURE})().canvases.at(-1) !== before", arg=before)
    assert page.url.endswith("&head=1.0") and "#/inside?run=small" in page.url  # still a link
    tokens = page.get_by_role("group", name="The text, in tokens").get_by_role("button")
    tokens.nth(3).click()  # seen before
    page.get_by_role("heading", name="what comes next, after “·”").wait_for()
    page.locator(".bars tr").first.wait_for()
    tokens.nth(5).click()
    page.get_by_label("What comes next").get_by_text(SENTENCE).wait_for()
    assert page.locator(".bars").count() == 0
    page.get_by_role("group", name="Switch off").get_by_role("button").first.click()
    page.get_by_role("alert").get_by_text(SENTENCE).wait_for()
    page.goto(f"{page.url.partition('#')[0]}#/loss?run=small&text={WORDS}")  # another view
    page.get_by_text("This saved page holds one view, Inside.").wait_for()


def test_the_slider_of_a_saved_page_has_the_checkpoints_that_were_seen(
    site: Site, open_page: OpenPage, save: Callable[..., Path], open_file: Callable[..., Any]
) -> None:
    live = open_page(f"{site.address}{INSIDE}&step=0")
    live.locator(".film").get_by_text("1 of ").wait_for()
    count = int(live.locator(".film").inner_text().partition(" of ")[2].partition(" ")[0])
    for part in (".bars", ".lens-grid", ".map2d"):  # the file has this checkpoint only if all of it was seen
        live.locator(part).wait_for()
    live.locator(".film input").fill(str(count - 1))
    live.get_by_text(f"{count} of {count} checkpoints").wait_for()
    file = save(live)
    live.get_by_text(f"with 2 of {count} checkpoints").wait_for()
    rules(live)
    page = open_file(file)
    page.get_by_text("2 of 2 saved checkpoints").wait_for()
    before = page.evaluate(PICTURE)["canvases"][-1]
    page.keyboard.press("[")
    page.get_by_text("1 of 2 saved checkpoints").wait_for()
    page.wait_for_function(f"before => ({PICTURE})().canvases.at(-1) !== before", arg=before)
    assert page.get_by_text(SENTENCE).count() == 0

    whole = save(live, "save with all checkpoints")
    live.get_by_text(f"with {count} of {count} checkpoints").wait_for()
    assert live.locator(".film").inner_text().count(f"{count} of {count} checkpoints") == 1  # as before
    page = open_file(whole)
    for at in range(count, 0, -1):
        page.get_by_text(f"{at} of {count} saved checkpoints").wait_for()
        page.keyboard.press("[")
    page.locator(".bars tr").first.wait_for()
    assert page.get_by_text(SENTENCE).count() == 0


def test_curves_are_saved_as_they_are_at_that_moment(
    runs_folder: Path, serve: Callable[[Path], Site], open_page: OpenPage, save: Callable[..., Path],
    open_file: Callable[..., Any],
) -> None:  # fmt: skip
    run = runs_folder / "small"
    cut_back(run / "metrics.jsonl", lambda line: line["step"] <= 20 and not line.get("final"))
    live = open_page(f"{serve(runs_folder).address}/runs?run=small")
    live.get_by_text("after 20 of 60 steps").wait_for()
    append(run, step_line(21, 2.0))
    live.get_by_text("after 21 of 60 steps").wait_for()
    page = open_file(save(live))
    page.get_by_text("after 21 of 60 steps").wait_for()
    assert page.get_by_text("connection").count() == 0


def test_texts_in_a_saved_page_are_never_executed(
    runs_folder: Path, serve: Callable[[Path], Site], open_page: OpenPage, save: Callable[..., Path],
    open_file: Callable[..., Any],
) -> None:  # fmt: skip
    name = "<img src=x onerror=alert(1)>"
    (runs_folder / "small").rename(runs_folder / name)
    with (runs_folder / name / "samples.jsonl").open("a") as samples:
        samples.write(json.dumps({"step": 60, "prompt": HOSTILE, "text": HOSTILE}) + "\n")
    site = serve(runs_folder)
    runs = open_page(f"{site.address}/runs?run={quote(name)}")
    runs.locator(".sample", has_text="window.hurt").wait_for()
    tokens = open_page(f"{site.address}/tokens?run={quote(name)}&text={quote(HOSTILE)}")
    tokens.locator(".tokens").first.wait_for()
    inside = open_page(f"{site.address}/inside?run={quote(name)}&text={quote(HOSTILE)}", expected="Failed to load")
    inside.get_by_role("alert").wait_for()  # the alphabet of the run lacks some of it
    for live, shown in ((runs, ".sample"), (tokens, ".tokens"), (inside, "[role=alert]")):
        file = save(live)
        assert "<" not in file.name
        page = open_file(file)
        page.locator(shown).first.wait_for()
        assert page.locator(".saved-note").inner_text().count(name) == 2
        assert page.evaluate("window.hurt") is None
        assert page.locator("main img").count() == 0


def test_a_saved_page_runs_no_other_script_and_reaches_no_network(
    site: Site, open_page: OpenPage, save: Callable[..., Path], open_file: Callable[..., Any]
) -> None:
    live = open_page(f"{site.address}/tokens?run=small")
    live.locator(".tokens").first.wait_for()
    page = open_file(save(live), expected="Content Security Policy")
    page.locator(".tokens").first.wait_for()
    refused = page.evaluate(
        """() => new Promise((done) => {
          const refused = new Set();
          const tell = () => done([...refused].sort());
          setTimeout(tell, 30_000);  // what is not refused by then fails the test, and does not stall it
          addEventListener("securitypolicyviolation", (event) => {
            refused.add(event.effectiveDirective);
            if (refused.size === 4) tell();
          });
          const script = document.createElement("script");
          script.textContent = "window.hurt = 1";
          const image = new Image();
          document.body.append(script, image);
          document.body.setAttribute("onclick", "window.hurt = 1");
          document.body.click();  // some versions of Chromium judge a handler only when it is to run
          image.src = "file:///nowhere";
          fetch("file:///nowhere").catch(() => {});
        })"""
    )
    assert refused == ["connect-src", "img-src", "script-src-attr", "script-src-elem"]
    assert page.evaluate("window.hurt") is None


def test_a_view_behind_a_token_is_saved_without_it(
    runs_folder: Path, open_page: OpenPage, save: Callable[..., Path], open_file: Callable[..., Any]
) -> None:
    with served(runs_folder, token="open-sesame") as site:
        live = open_page(f"{site.address}{INSIDE}&token=open-sesame")
        live.locator(".bars tr").first.wait_for()
        file = save(live)
    assert "open-sesame" not in file.read_text()
    open_file(file).locator(".bars tr").first.wait_for()


def test_a_saved_page_names_no_other_run_and_no_folder(
    site: Site, open_page: OpenPage, save: Callable[..., Path]
) -> None:
    live = open_page(f"{site.address}/inside?run=wide&text={WORDS}")
    live.locator(".bars tr").first.wait_for()
    live.get_by_role("combobox", name="run").select_option("small")
    live.locator(".bars tr").first.wait_for()
    live.wait_for_load_state("networkidle")
    data = held(save(live))
    assert data["runs"] == ["small"]
    assert not [key for key in data["answers"] if "wide" in key]


def test_a_long_text_that_only_the_tab_has_is_in_the_file(
    site: Site, open_page: OpenPage, save: Callable[..., Path], open_file: Callable[..., Any]
) -> None:
    live = open_page(f"{site.address}/loss?run=small")
    text = "The cat sat on a mat. " * 180
    live.get_by_label("Your text").fill(text)
    live.get_by_text("too long for an address").wait_for()
    live.locator(".tokens button").nth(3900).wait_for()
    page = open_file(save(live))
    page.locator(".tokens button").nth(3900).wait_for()
    assert page.get_by_label("Your text").input_value() == text


def test_a_server_that_is_gone_gives_a_sentence(runs_folder: Path, open_page: OpenPage) -> None:
    with served(runs_folder) as site:
        page = open_page(f"{site.address}{INSIDE}", expected="net::ERR")
        page.locator(".bars tr").first.wait_for()
    page.get_by_role("button", name="save").click()
    page.get_by_text("Not saved: the server does not answer: is glassgpt look still running?").wait_for()


def test_a_link_to_another_view_says_that_the_file_has_one(
    site: Site, open_page: OpenPage, save: Callable[..., Path], open_file: Callable[..., Any]
) -> None:
    page = open_page(f"{site.address}/heads?run=small")
    page.locator(".all-heads tbody tr").first.wait_for()
    offline = open_file(save(page))
    offline.locator(".all-heads tbody a").first.click()
    assert offline.inner_text("main") == (
        "This saved page holds one view, Neurons and heads. The live view has the others."
    )
    offline.go_back()
    offline.locator(".all-heads tbody tr").first.wait_for()
