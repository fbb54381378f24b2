"""The views of models that lack most of what a view shows: the first sections of the ladder, with a short window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Site, served

import glassgpt as gg

OpenPage = Callable[..., Any]
SECTIONS = ("bigram", "averaging", "head", "feedforward")
SETTINGS = {
    "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 16, "model.block_size": 8, "training.batch_tokens": 64,
    "training.max_steps": 2, "schedule.warmup_steps": 1, "machine.device": "cpu", "evaluation.tokens": 100,
    "evaluation.sample_tokens": 50, "evaluation.sample_every": 1,
}  # fmt: skip


@pytest.fixture(scope="session")
def sections(text: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server over one small run of each of these sections."""
    root = tmp_path_factory.mktemp("sections") / "runs"
    root.mkdir()
    (source := root.parent / "sentences.txt").write_text(text, encoding="utf-8")
    for name in SECTIONS:
        settings = SETTINGS | {"model.architecture": name}
        gg.train("char-tiny", data=source, run=root / name, settings=settings, listener=gg.Listener())
    with served(root) as found:
        yield found


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("bigram", "This model has no attention: a token hears only itself."),
        ("averaging", "This model has no attention: a token hears itself and all tokens before it alike."),
        ("head", "Head 0.0 gives "),
    ],
)
def test_whom_a_token_hears_in_a_text_that_fits(
    section: str, expected: str, sections: Site, open_page: OpenPage
) -> None:
    page = open_page(f"{sections.address}/inside?run={section}&edits=", expected="400")  # bigram has no embedding
    page.get_by_text(expected).first.wait_for()
    assert 1 <= page.locator(".tokens button").count() <= 8


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("averaging", "This model has no attention heads."),
        ("head", "The only head, 0.0, is of no known kind. Its induction score is "),
    ],
)
def test_how_few_heads_are_told(section: str, expected: str, sections: Site, open_page: OpenPage) -> None:
    page = open_page(f"{sections.address}/heads?run={section}")
    page.get_by_text(expected).wait_for()


def test_a_neuron_and_a_text_of_one_token(sections: Site, open_page: OpenPage) -> None:
    page = open_page(f"{sections.address}/heads?run=feedforward&part=neurons&own=1&text=a")
    page.get_by_text("Read: the only token of your text").wait_for()
    page.get_by_text("and in which nothing is switched off").wait_for()  # the blocks of this section replace the stream
    assert "-0." not in page.inner_text("main")


@pytest.mark.parametrize("view", ["inside", "loss"])
def test_a_sample_is_shown_without_its_special_tokens(
    view: str, runs_folder: Path, serve: Callable[[Path], Site], open_page: OpenPage
) -> None:
    samples = runs_folder / "small/samples.jsonl"
    samples.write_text('{"step": 60, "prompt": "", "text": "<|endoftext|>The cat ran.<|endoftext|>"}\n')
    page = open_page(f"{serve(runs_folder).address}/{view}?run=small")
    page.locator(".tokens button").first.wait_for()
    assert page.locator("textarea").input_value() == "The cat ran."
