"""Loss in a browser: each token by its loss, for one model or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import torch

import glassgpt as gg
from glassgpt.inspection.surprise import TokenLosses, token_losses

OpenPage = Callable[..., Any]
Hold = Callable[[Any, str], Callable[[], None]]
Site = Any  # a running server, of the fixtures
WORDS = "The cat sat on a mat."


def measured(site: Site, name: str, step: int | str = "best") -> TokenLosses:
    """Called before a page is opened: torch cannot build a model here while the server's thread builds one."""
    run = gg.load(site.runs / name, checkpoint=step)
    return token_losses(run.model, run.tokenizer.encode(WORDS))


def tokens(page: Any, side: str = "The model") -> Any:
    return page.get_by_role("region", name=side, exact=True).locator(".tokens").get_by_role("button")


def token(page: Any) -> list[str]:
    return parse_qs(urlsplit(page.url).query).get("token", [])


def test_each_token_has_the_colour_of_its_loss(site: Site, open_page: OpenPage) -> None:
    found = measured(site, "small")
    page = open_page(f"{site.address}/loss?run=small&text={quote(WORDS)}")
    page.get_by_text(f"mean {found.losses.mean():.2f} nats per token").wait_for()
    assert tokens(page).count() == len(WORDS)
    names = tokens(page).evaluate_all("all => all.map(one => one.ariaLabel)")
    assert [name.rpartition(" ")[2] for name in names[1:]] == [f"{loss:.2f}" for loss in found.losses]
    colours = tokens(page).evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    order = found.losses.argsort()
    assert len({colours[int(order[0]) + 1], colours[int(order[-1]) + 1], colours[0]}) == 3


def test_the_worst_tokens_lead_to_their_places(site: Site, open_page: OpenPage) -> None:
    found = measured(site, "small")
    worst = (found.losses.argsort(descending=True) + 1).tolist()
    page = open_page(f"{site.address}/loss?run=small&text={quote(WORDS)}")
    items = page.locator("ol.worst button")
    items.nth(9).wait_for()
    assert tokens(page).nth(worst[0]).get_attribute("aria-pressed") == "true"  # where nothing is chosen
    for place in (0, 3):
        items.nth(place).click()
        page.wait_for_function(f"document.activeElement.dataset.index === '{worst[place]}'")
        assert token(page) == [str(worst[place])]
        assert f"loss {found.losses[worst[place] - 1]:.2f}" in page.inner_text("main")
    page.keyboard.press("Home")
    page.get_by_text("the first token, so it has no prediction").wait_for()


def test_another_text_has_its_own_worst_token(site: Site, open_page: OpenPage) -> None:
    run = gg.load(site.runs / "small")
    texts = ["The cat sat on a mat.", "A dog ran on the mats.", "On mats the dogs sat."]
    worst = [int(token_losses(run.model, run.tokenizer.encode(text)).losses.argmax()) + 1 for text in texts]
    first, second = next((a, b) for a in range(3) for b in range(3) if worst[a] != worst[b])
    page = open_page(f"{site.address}/loss?run=small&text={quote(texts[first])}")
    for text in (first, second):
        page.get_by_label("Your text").fill(texts[text])
        page.locator(f".tokens button:nth-child({len(texts[text])}):last-child").wait_for()
        page.locator(f".tokens [data-index='{worst[text]}'][aria-pressed=true]").wait_for()


def test_the_losses_of_another_run_do_not_stay(site: Site, open_page: OpenPage, hold: Hold) -> None:
    page = open_page(f"{site.address}/loss?run=small&run2=small&step2=0&text={quote(WORDS)}")
    page.get_by_text("nats worse").wait_for()
    release = hold(page, "**/api/losses")
    page.get_by_label("compare with").select_option("wide")
    page.get_by_role("region", name="The model compared with").get_by_role("heading", name="wide").wait_for()
    assert tokens(page, "The model compared with").count() == 0
    release()
    page.get_by_text("nats worse").wait_for()


def test_two_texts_are_not_compared(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/loss?run=small&run2=wide&text={quote(WORDS)}")
    page.get_by_text("nats worse").wait_for()
    held: list[Any] = []

    def hold_the_other(route: Any) -> None:
        held.append(route) if '"wide"' in route.request.post_data else route.continue_()

    page.route("**/api/losses", hold_the_other)
    page.get_by_label("Your text").fill("The dogs")
    tokens(page).nth(7).wait_for()
    page.locator("[aria-label='The model'] .tokens button:nth-child(8):last-child").wait_for()
    assert page.get_by_text("The two models have different tokens").count() == 0
    for route in held:
        route.continue_()
    page.get_by_text("nats worse").wait_for()
    page.unroute("**/api/losses")


def test_what_the_model_expected(site: Site, open_page: OpenPage) -> None:
    found, tokenizer = measured(site, "small"), gg.load(site.runs / "small").tokenizer
    page = open_page(f"{site.address}/loss?run=small&token=5&text={quote(WORDS)}")
    rows = page.locator("table.bars tbody tr")
    rows.nth(4).wait_for()
    expected = [tokenizer.decode([id]).replace(" ", "·").replace("\n", "↵") for id in found.expected_ids[4].tolist()]
    assert rows.locator("th").all_inner_texts() == expected
    widths = rows.locator(".bar span").evaluate_all("all => all.map(one => parseFloat(one.style.width))")
    assert torch.tensor(widths) / 100 == pytest.approx(found.expected_probabilities[4], abs=1e-4)


def test_the_slider_moves_through_the_checkpoints(site: Site, open_page: OpenPage) -> None:
    means = {step: f"{measured(site, 'small', step).losses.mean():.2f}" for step in (0, 60)}
    page = open_page(f"{site.address}/loss?run=small&step=0&text={quote(WORDS)}")
    for key, step in (("", 0), ("End", 60), ("Home", 0)):
        if key:
            page.get_by_label("checkpoint", exact=True).press(key)
        page.get_by_text(f"mean {means[step]} nats per token").wait_for()


def test_two_checkpoints_side_by_side(site: Site, open_page: OpenPage) -> None:
    gains = measured(site, "small").losses - measured(site, "small", 0).losses
    page = open_page(f"{site.address}/loss?run=small&text={quote(WORDS)}")
    page.get_by_label("compare with").select_option("small")
    items = page.get_by_role("region", name="The model compared with").locator("ol.worst button")
    page.get_by_text("nats worse").wait_for()  # both sides have their answers
    largest = int(gains.abs().argmax())
    assert (
        items.nth(0).inner_text().endswith(f"{gains[largest].abs():.2f} {'worse' if gains[largest] < 0 else 'better'}")
    )
    tokens(page, "The model compared with").nth(7).click()
    for side in ("The model", "The model compared with"):
        page.locator(f"[aria-label='{side}'] .tokens [data-index='7'][aria-pressed=true]").wait_for()
    assert parse_qs(urlsplit(page.url).query)["run2"] == ["small"]


def test_a_question_that_one_side_gives_up_is_still_answered_for_the_other(site: Site, open_page: OpenPage) -> None:
    """Both sides begin with the same checkpoint, so they share a request; the first one moves on while it waits."""
    page = open_page(f"{site.address}/tokens?run=small&text=cat")
    waiting: list[Any] = []
    page.route("**/api/losses", lambda route: route.continue_() if waiting else waiting.append(route))
    with page.expect_request("**/api/losses"):
        page.goto(f"{site.address}/loss?run=small&run2=small&step=0&step2=0&text={quote(WORDS)}")
    page.get_by_label("checkpoint", exact=True).nth(0).press("End")
    tokens(page).nth(3).wait_for()
    tokens(page, "The model compared with").nth(3).wait_for()


def test_runs_with_different_tokenizers(
    runs_folder: Path, text: str, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    (source := runs_folder.parent / "sentences.txt").write_text(text, encoding="utf-8")
    settings = {
        "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 32, "model.block_size": 32, "machine.device": "cpu",
        "training.max_steps": 2, "training.batch_tokens": 64, "schedule.warmup_steps": 1, "evaluation.tokens": 200,
        "tokenizer.name": "bpe", "tokenizer.vocab_size": 290,
    }  # fmt: skip
    gg.train("char-tiny", data=source, run=runs_folder / "pairs", settings=settings, listener=gg.Listener())
    tokenizer = gg.load(runs_folder / "pairs").tokenizer
    lengths = [len(tokenizer.token_bytes(id)) for id in tokenizer.encode(WORDS)]
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    page = open_page(f"{serve(runs_folder).address}/loss?run=small&run2=pairs&token=10&text={quote(WORDS)}")
    page.get_by_text("The two models have different tokens").wait_for()
    chosen = tokens(page, "The model compared with").nth(max(n for n, start in enumerate(starts) if start <= 10))
    assert chosen.get_attribute("aria-pressed") == "true"
    tokens(page, "The model compared with").nth(2).click()
    assert token(page) == [str(starts[2])]  # a letter is a byte and a token of the other run


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_page_does_not_scroll_sideways(site: Site, open_page: OpenPage, dark: bool) -> None:
    page = open_page(f"{site.address}/loss?run=small&run2=wide&text={quote(WORDS * 5)}", width=400, dark=dark)
    page.get_by_text("overlap by 16").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_bad_texts_are_one_sentence(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/loss?run=small&text={quote('a 字')}", expected="400 (Bad Request)")
    page.get_by_role("alert").get_by_text("character '字' (U+5B57) at position 2").wait_for()
    assert page.locator(".tokens").count() == 0
    page.get_by_label("Your text").fill("T")
    page.get_by_role("alert").get_by_text("a single token").wait_for()
    page.get_by_label("Your text").fill(WORDS)
    tokens(page).nth(3).wait_for()
    page.get_by_role("alert").wait_for(state="detached")
