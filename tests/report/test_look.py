"""The pictures of a text in a model: what they say is what the instruments say, whatever the text holds."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

import glassgpt as gg
from glassgpt.errors import UserError
from glassgpt.inspection.attention import head_scores, heads_of
from glassgpt.inspection.lens import logit_lens
from glassgpt.inspection.surprise import token_losses
from glassgpt.models import find_architecture
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.report.look import Look
from glassgpt.report.look.drawing import View, columns, fit, labels_of
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer
from glassgpt.tokenizers.pieces import tokens_of
from glassgpt.tokenizers.printable import BYTE_ORDER

# Letters, wide characters, a mark that stands on the letter before it, and what a terminal or a page would obey.
HOSTILE = "ab<>&\"'红楼é\u0301🙂\x1b[\x07\x08\r\n\t \u202e\u200b\x7f\x9b"
TOKENIZER = CharTokenizer(sorted(set(HOSTILE)), ["<|endoftext|>"])


def model(block_size: int = 32, vocab_size: int = TOKENIZER.vocab_size + 3) -> GPT2:
    """Random weights, large enough that heads differ; more ids than the tokenizer has, as in an imported model."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=vocab_size, block_size=block_size, n_layer=2, n_head=3, n_embd=24)
    built = GPT2(config).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(std=0.3)
    return built


MODEL = model()


def look(text: str, gpt: GPT2 = MODEL) -> Look:
    return Look(gpt, TOKENIZER, TOKENIZER.encode(text), "toy, step 3")


def views(seen: Look) -> list[View]:
    return [seen.tokens(), seen.attention(), seen.lens(), seen.lens(0), seen.losses()]


class Outline(HTMLParser):
    """The elements of a page in order, and whether each is closed by its own end."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# -- any text, any width --


@settings(max_examples=25)
@given(st.text(st.sampled_from(HOSTILE), min_size=1, max_size=32), st.integers(40, 120))
def test_a_terminal_shows_any_text_within_its_width_and_obeys_none(text: str, width: int) -> None:
    for view in views(look(text)):
        for line in view.lines(width):
            drawn = "".join(span.text for span in line).rstrip()
            assert drawn.isprintable(), repr(drawn)
            assert cell_len(drawn) <= width, (type(view), drawn)


@settings(max_examples=10)
@given(st.text(st.sampled_from(HOSTILE), min_size=1, max_size=32))
def test_a_page_shows_any_text_and_obeys_none(text: str) -> None:
    allowed = {"div", "style", "p", "span", "small", "table", "thead", "tbody", "tr", "th", "td", "details", "summary",
               "svg", "rect", "text", "g", "title"}  # fmt: skip
    for view in views(look(text)):
        outline = Outline(view._repr_html_())
        assert set(outline.elements) <= allowed and not outline.open


@given(st.characters(exclude_categories=["Cs", "Cn", "Co"]))
def test_the_width_of_a_letter_is_that_of_a_terminal(letter: str) -> None:
    (label,) = labels_of([{"id": 0, "text": letter}])
    assume(not "\U0001f3fb" <= letter <= "\U0001f3ff")  # a colour of skin is a picture of its own only if alone
    assert columns(label) == cell_len(label)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [("ab", 4, "ab  "), ("abcdef", 4, "abc…"), ("红楼梦", 6, "红楼梦"), ("红楼梦", 5, "红楼…"), ("红楼梦", 4, "红… ")],
)
def test_a_text_takes_exactly_its_columns(text: str, width: int, expected: str) -> None:
    assert fit(text, width) == expected


def test_a_label_is_one_line_whatever_the_token_is() -> None:
    tokens = tokens_of(TOKENIZER, [*TOKENIZER.encode(" \n\x1b\u0301红"), TOKENIZER.vocab_size - 1, 999])
    assert labels_of(tokens) == ["·", "↵", r"\x1b", "◌\u0301", "红", "<|endoftext|>", "id 999"]
    bpe = BPETokenizer(dict(enumerate(BYTE_ORDER)), [])
    assert labels_of(tokens_of(bpe, bpe.encode("é"))) == [r"\xc3", r"\xa9"]


# -- what they say --


def test_attention_draws_the_pattern_of_the_head_that_was_asked_for() -> None:
    seen = look("ab<>&ab<")
    view = seen.attention(1, 2)
    torch.testing.assert_close(view.pattern, heads_of(gg.trace(MODEL, seen.ids))[1, 2])
    drawn = repr(view).splitlines()
    assert "head 1.2 of toy, step 3" in drawn[1]
    rows = [line for line in drawn if re.match(r"\d ", line)]
    assert len(rows) == 8
    for query, row in enumerate(rows):
        key = int(view.pattern[query].argmax())
        assert row.split()[-2:] == [seen.text[key], f"{float(view.pattern[query, key]):.0%}"]
        blocks = row[4 : 4 + 2 * (query + 1)]
        for weight, block in zip(view.pattern[query].tolist(), blocks[::2], strict=False):
            assert block == ("█" if weight >= 0.75 else "▓" if weight >= 0.5 else "▒" if weight >= 0.25
                             else "░" if weight >= 0.05 else ".")  # fmt: skip


def test_the_head_of_the_clearest_kind_is_drawn() -> None:
    seen = look("ab<>&ab<")
    scores = head_scores(heads_of(gg.trace(MODEL, seen.ids)), seen.ids)
    best = torch.stack([scores.previous, scores.induction, scores.duplicate]).amax(dim=0)
    view = seen.attention()
    assert (view.layer, view.head) == divmod(int(best.argmax()), 3)


def test_a_part_of_the_head_narrows_the_choice() -> None:
    seen = look("ab<>&ab<")
    assert seen.attention(layer=1).layer == 1
    assert seen.attention(head=2).head == 2


def test_a_long_text_keeps_the_last_tokens_and_the_strongest_of_all() -> None:
    view = look("ab" * 16).attention(0, 0)
    lines = ["".join(span.text for span in line) for line in view.lines(40)]
    (note,) = [line for line in lines if line.startswith("These are the last")]
    drawn = int(note.split()[4])
    rows = [line for line in lines if re.match(r" ?\d+ [ab] ", line)]
    assert len(rows) == drawn < 32 and rows[-1].startswith("31 ")


def test_many_heads_of_a_block_take_several_rows() -> None:
    config = GPT2Config(vocab_size=TOKENIZER.vocab_size, block_size=8, n_layer=1, n_head=25, n_embd=50)
    lines = repr(look("ab<>", GPT2(config).eval()).attention()).splitlines()
    assert max(map(cell_len, lines)) <= 80
    numbers = [line.split() for line in lines if re.fullmatch(r"[ \d]+", line)]
    assert [int(number) for row in numbers for number in row] == list(range(25))


def test_a_model_in_16_bits_is_shown() -> None:
    for view in views(look("ab<>", model().to(torch.bfloat16))):
        assert repr(view) and view._repr_html_()


def test_the_lens_gives_the_guesses_of_each_layer() -> None:
    seen = look("ab<>")
    view, lens = seen.lens(1), logit_lens(gg.trace(MODEL, seen.ids), [1], 5)
    assert view.layers == ["embedding", "block 0", "block 1"]
    assert [[token["id"] for token in row] for row in view.predictions] == lens.ids[:, 0].tolist()
    torch.testing.assert_close(view.probabilities, lens.probabilities[:, 0])
    assert view.following is not None and view.following["text"] == "<"
    torch.testing.assert_close(view.following_probabilities, lens.target_probabilities[:, 0])
    assert "The text goes on with “<”." in repr(view)
    assert seen.lens().following is None


def test_the_losses_are_those_of_the_instrument_and_the_worst_are_named() -> None:
    seen = look("ab<>&ab")
    view = seen.losses()
    expected = token_losses(MODEL, seen.ids)
    torch.testing.assert_close(view.losses, expected.losses)
    worst = int(expected.losses.argmax()) + 1
    drawn = repr(view)
    first = drawn.split("what was expected\n")[1].splitlines()[0].split()
    assert first[:3] == [str(worst), seen.text[worst], f"{float(expected.losses.max()):.2f}"]
    assert f"mean loss is {float(expected.losses.mean()):.2f}" in drawn


def test_losses_and_tokens_take_a_text_of_any_length() -> None:
    seen = look("ab<>" * 20)
    assert len(seen.losses().losses) == 79
    assert seen.tokens().ids == list(seen.ids)
    with pytest.raises(UserError, match="more than the model's block_size of 32"):
        seen.attention()
    with pytest.raises(UserError, match="more than the model's block_size of 32"):
        seen.lens()


def test_one_token_is_a_text_too() -> None:
    seen = look("a")
    assert "nothing predicts the first token" in repr(seen.losses())
    assert "100%" in repr(seen.attention())
    for view in views(seen)[:3]:
        assert view._repr_html_()


def test_the_numbers_are_json() -> None:
    for view in views(look(HOSTILE)):
        json.dumps(view.to_dict(), allow_nan=False)


# -- what cannot be shown --


def test_no_text_and_no_such_head_or_position_are_refused() -> None:
    with pytest.raises(UserError, match="the text is empty"):
        look("")
    with pytest.raises(UserError, match="there is no head 3: a block has 3 heads"):
        look("ab").attention(0, 3)
    with pytest.raises(UserError, match="no block 2 has attention; blocks that have it: 0, 1"):
        look("ab").attention(2)
    with pytest.raises(UserError, match="there is no position 2"):
        look("ab").lens(2)


def test_a_model_without_attention_says_so_and_shows_the_rest() -> None:
    found = find_architecture("bigram")
    bigram = found.model(found.config(vocab_size=TOKENIZER.vocab_size, block_size=8))
    seen = Look(bigram.eval(), TOKENIZER, TOKENIZER.encode("ab<>"), "bigram")
    with pytest.raises(UserError, match="bigram has no attention: look at its lens"):
        seen.attention()
    assert seen.lens().layers == ["output"]
    assert len(seen.losses().losses) == 3


def test_numbers_that_are_none_are_shown() -> None:
    """A model that diverged has weights that are not finite."""
    broken = model()
    with torch.no_grad():
        broken.token_embedding.weight.fill_(torch.nan)
    for view in views(look("ab<>", broken)):
        assert repr(view) and view._repr_html_()
