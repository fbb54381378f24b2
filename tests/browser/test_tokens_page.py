"""Tokens in a browser: one text through several tokenizers, and the merges of a word."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from glassgpt.tokenizers.bpe import BPETokenizer

OpenPage = Callable[..., Any]
Site = Any  # a running server, of the fixtures
WORDS = "The cat sat.\nOn mats"


@pytest.fixture
def bpe(text: str) -> BPETokenizer:
    return BPETokenizer.train(text, 290)


@pytest.fixture
def site(
    bpe: BPETokenizer,
    runs_folder: Path,
    serve: Callable[[Path], Site],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    """A server over two runs, one of them with a BPE, with no other tokenizer at hand."""
    bpe.save(runs_folder / "small" / "tokenizer.json")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return serve(runs_folder)


@pytest.fixture
def page(site: Site, open_page: OpenPage) -> Any:
    return open_page(f"{site.address}/tokens?run=small&text={quote(WORDS)}")


def panel(page: Any, label: str) -> Any:
    return page.get_by_role("region", name=label, exact=True)


def tokens(page: Any, label: str) -> Any:
    return page.get_by_role("group", name=f"Tokens of {label}", exact=True).get_by_role("button")


def parameters(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query, keep_blank_values=True)


def test_tokens_side_by_side(page: Any, bpe: BPETokenizer) -> None:
    ids = bpe.encode(WORDS)
    panel(page, "run small").get_by_text(f"{len(ids)} tokens").wait_for()
    shown = [bpe.decode([id]).replace(" ", "·").replace("\n", "↵") for id in ids]
    assert tokens(page, "run small").all_inner_texts() == shown
    assert tokens(page, "char").count() == len(WORDS)
    assert f"is {len(ids)} tokens for run small and {len(WORDS)} for char." in page.inner_text("main")
    assert "Not at hand" in page.inner_text("main") and "glassgpt tokenizer info --tokenizer gpt2" in page.inner_text(
        "main"
    )
    page.get_by_role("button", name="ids").click()
    assert panel(page, "run small").locator("small").all_inner_texts() == [str(id) for id in ids]


def test_a_chosen_token_shows_the_same_bytes_and_how_its_word_is_built(page: Any, bpe: BPETokenizer) -> None:
    ids = bpe.encode(WORDS)
    word = bpe.words(WORDS)[1]
    index = len(bpe.encode(bpe.words(WORDS)[0]))  # the first token of " cat"
    tokens(page, "run small").nth(index).click()
    assert parameters(page)["pick"] == [f"run:{index}"]
    steps = bpe.merge_steps(word)
    rows = panel(page, "The chosen token").locator("ol.merges > li")
    rows.nth(len(steps) - 1).wait_for()
    assert rows.count() == len(steps)
    lowest = panel(page, "The chosen token").locator("small.next").all_inner_texts()
    assert lowest == [str(step.ranks[step.place]) for step in steps if step.place is not None]
    start = len(bpe.decode(ids[:index]))
    marked = [int(place) for place in page.locator(".marked").evaluate_all("all => all.map(one => one.dataset.index)")]
    assert marked == list(range(start, start + len(bpe.token_bytes(ids[index]))))
    tokens(page, "char").nth(0).hover()  # the pointer goes before what is chosen
    page.locator("[aria-label='Tokens of run small'] [data-index='0'].marked").wait_for()


def test_the_arrow_keys_move_the_choice(page: Any) -> None:
    tokens(page, "char").nth(3).click()
    for key, index in (("ArrowRight", 4), ("ArrowLeft", 3), ("End", len(WORDS) - 1), ("Home", 0), ("ArrowDown", 13)):
        page.keyboard.press(key)
        focused = page.evaluate("document.activeElement.dataset.index")
        assert (focused, parameters(page)["pick"]) == (str(index), [f"char:{index}"])
        reachable = tokens(page, "char").evaluate_all("all => all.filter(one => one.tabIndex === 0).length")
        assert reachable == 1
    assert tokens(page, "char").nth(13).get_attribute("aria-pressed") == "true"


def test_typing_changes_the_tokens_and_the_address(page: Any) -> None:
    tokens(page, "char").nth(1).click()
    page.get_by_label("Your text").fill("<img src=x onerror=alert(1)> é")
    page.get_by_text("This text of 30 characters (31 bytes) is").wait_for()
    assert parameters(page)["text"] == ["<img src=x onerror=alert(1)> é"]
    assert "pick" not in parameters(page)
    assert page.locator("main img").count() == 0
    assert "c3" in panel(page, "run small").inner_text()
    page.get_by_label("Your text").fill("")
    page.get_by_text("Type or paste a text.").wait_for()
    page.get_by_role("button", name="emoji").click()
    panel(page, "char").wait_for()


def test_a_character_that_a_run_does_not_know_is_said(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/tokens?run=wide&text={quote('a 字')}")
    page.get_by_text(re.compile(r"No tokens: character '字' \(U\+5B57\) at position 2")).wait_for()
    assert tokens(page, "char").count() == 3


def test_a_text_too_long_for_an_address_stays_in_its_tab(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.address}/tokens?run=small&text=a")
    page.get_by_label("Your text").fill("the cat sat. " * 600)
    page.get_by_text("This text is too long for an address").wait_for()
    assert parameters(page) == {"run": ["small"], "held": ["1"]}
    page.get_by_text("The first 2,000 tokens are shown; all are counted.").first.wait_for()
    page.reload()
    page.get_by_text("This text of 7,800 characters").wait_for()
    other = open_page(page.url)
    other.get_by_text("The text of this link was too long for an address").wait_for()


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_page_does_not_scroll_sideways(site: Site, open_page: OpenPage, dark: bool) -> None:
    page = open_page(f"{site.address}/tokens?run=small&pick=run:3&text={quote(WORDS)}", width=400, dark=dark)
    panel(page, "The chosen token").locator("ol.merges").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_tokens_need_no_run(tmp_path: Path, serve: Callable[[Path], Site], open_page: OpenPage) -> None:
    page = open_page(f"{serve(tmp_path).address}/tokens?text=cat")
    panel(page, "char").wait_for()
    assert tokens(page, "char").all_inner_texts() == ["c", "a", "t"]
