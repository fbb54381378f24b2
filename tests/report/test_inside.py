"""What a report shows of the inside of a model is what the instruments say."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_look import HOSTILE, MODEL, TOKENIZER, Outline, look, model

from glassgpt.inspection.attention import head_scores
from glassgpt.inspection.sight import Sight
from glassgpt.models import find_architecture
from glassgpt.report.inside import attention_html, inside_html, neighbours_html
from glassgpt.report.look import Look
from glassgpt.report.look.heads import STEPS, Heads, small_map
from glassgpt.tokenizers.char import CharTokenizer

T = 6
IDS = [0, 1, 2, 0, 1, 2]
WEAK = torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]  # all positions equally
PREVIOUS = torch.eye(T).roll(-1, dims=1)
PREVIOUS[0] = torch.eye(T)[0]
FIRST = torch.eye(T)[:1].expand(T, T)


def heads(*rows: list[torch.Tensor]) -> Heads:
    patterns = torch.stack([torch.stack(row) for row in rows])
    tokens = [{"id": id, "text": "abc"[id]} for id in IDS]
    sights = [Sight()] * len(rows)
    return Heads("toy", tokens, list(range(len(rows))), patterns, head_scores(patterns, IDS), sights, None)


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=7, max_size=7), min_size=7, max_size=7))
def test_a_small_map_has_every_weight_in_its_place(weights: list[list[float]]) -> None:
    drawn = np.zeros((7, 7))
    for step, path in re.findall(r'<path stroke-opacity="([\d.]+)" d="(.*?)"/>', small_map(weights, "x")):
        for column, row, length in re.findall(r"M(\d+) (\d+)h(\d+)", path):
            drawn[int(row), int(column) : int(column) + int(length)] = float(step)
    assert np.abs(drawn - weights).max() <= 0.5 / STEPS + 1e-9


def test_the_heads_with_a_name_are_shown_and_one_of_each_other_block() -> None:
    found = heads([WEAK, PREVIOUS, PREVIOUS], [FIRST, WEAK, FIRST], [WEAK, WEAK, WEAK], [FIRST, PREVIOUS, WEAK])
    assert found.chosen() == [(0, 1), (0, 2), (1, 0), (2, 0), (3, 1)]
    assert found.chosen(most=3) == [(0, 1), (0, 2), (3, 1)]  # those with a name before the others
    assert found.clearest[0] == (0, 1)
    assert found.answer == ("On this text, 6 of its 12 heads are of a known kind: previous token 3, first token 3.")
    assert heads([WEAK, WEAK]).answer == "None of its 2 heads is of a known kind on this text."
    assert heads([WEAK]).answer == "Its only head is of no known kind on this text."
    assert heads([PREVIOUS]).answer == "Its only head is of the kind previous token on this text."
    captions = re.findall(r"<figcaption>(.*?)<small>(.*?)</small>", found.maps_html())
    assert captions[0] == ("head 0.1", "previous token 100%")
    assert ("head 2.0", "no known kind") in captions


def test_the_map_of_a_head_is_that_head() -> None:
    seen = look("ab ab ab")
    html = attention_html(seen)
    every = seen.heads()
    maps = re.findall(r"<figure><svg.*?>(.*?)</svg><figcaption>head (\d)\.(\d)<", html)
    assert [(int(layer), int(head)) for _, layer, head in maps] == every.chosen()
    for paths, layer, head in maps:
        assert paths in small_map(every.pattern(int(layer), int(head)).tolist(), "")
    large = every.view(*every.clearest[0])
    assert large.picture_html() in html
    assert "its first 8 tokens" in html


def test_neighbours_are_those_of_the_commonest_tokens() -> None:
    sample = TOKENIZER.encode("abba<abba<a")
    html = neighbours_html(MODEL, TOKENIZER, sample)
    rows = re.findall(r"<tr><th>“(.*?)”</th><td[^>]*>(\d+)</td>(.*?)</tr>", html)
    assert [(name, int(times)) for name, times, _ in rows] == [("a", 5), ("b", 4), ("&lt;", 2)]
    weights = MODEL.token_embedding.weight.detach().double().numpy()[: MODEL.config.vocab_size]
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    for (_, _, cells), (id, _) in zip(rows, Counter(sample).most_common(), strict=True):
        cosines = unit @ unit[id]
        cosines[id] = -np.inf
        shown = [float(value) for value in re.findall(r" (-?\d\.\d\d)</span>", cells)]
        assert shown == pytest.approx(np.sort(cosines)[::-1][:5], abs=0.00501)


def test_whatever_the_text_holds_the_page_is_whole() -> None:
    seen = look(HOSTILE)
    html = inside_html(seen, seen.ids)
    elements = Outline(html).elements
    assert "script" not in html
    assert not set("\x1b\x07\x08\x7f\x9b\u202e\u200b") & set(html)
    assert {"figure", "table", "details"} <= set(elements)


@pytest.mark.parametrize(
    ("architecture", "missing"),
    [
        ("bigram", ["This model has no attention.", "This model has no token embedding"]),
        ("embedding", ["This model has no attention."]),
        ("head", []),
    ],
)
def test_what_an_architecture_lacks_takes_a_sentence(architecture: str, missing: list[str]) -> None:
    found = find_architecture(architecture)
    torch.manual_seed(0)
    sizes = {"vocab_size": TOKENIZER.vocab_size, "block_size": 16, "n_layer": 1, "n_head": 1, "n_embd": 8}
    built = found.model(found.config(**sizes)).eval()
    ids = TOKENIZER.encode("abab")
    html = inside_html(Look(built, TOKENIZER, ids, "toy"), ids)
    sentences = re.findall(r'<p class="missing">(.*?)</p>', html)
    assert len(sentences) == len(missing)
    assert all(sentence.startswith(words) for sentence, words in zip(sentences, missing, strict=True))


def test_a_model_that_has_diverged_shows_no_figures() -> None:
    diverged = model()
    with torch.no_grad():
        diverged.token_embedding.weight.fill_(torch.nan)
    seen = look("abab", diverged)
    html = inside_html(seen, seen.ids)
    assert html.count("is not a finite number: training has diverged.") == 2
    assert "nan" not in html


def test_a_vocabulary_of_one_token_has_no_neighbours() -> None:
    alone = CharTokenizer(["a"], [])
    html = neighbours_html(model(vocab_size=1), alone, alone.encode("aaa"))
    assert "The vocabulary has only one token." in html
