"""Hidden tokens: how many, which, what stands in their place, and that they depend on (seed, sample) alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.data.masking import MASK_TOKENS, HiddenRows, Hider
from glassgpt.errors import UserError
from glassgpt.tokenizers.char import CharTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PLAIN = CharTokenizer.train(LETTERS, ["[MASK]"])
FRAMED = CharTokenizer.train(LETTERS, ["[CLS]", "[SEP]", "[MASK]", "[PAD]"])
ORDINARY = set(PLAIN.encode(LETTERS))


def letters(rows: int, width: int, tokenizer: CharTokenizer = PLAIN, seed: int = 0) -> np.ndarray:
    ids = np.array(tokenizer.encode(LETTERS))
    return ids[np.random.default_rng(seed).integers(len(ids), size=(rows, width))]


@st.composite
def hiders(draw: st.DrawFn) -> tuple[Hider, np.ndarray, np.ndarray]:
    """A hider, rows of tokens and their sample numbers."""
    tokenizer = draw(st.sampled_from([PLAIN, FRAMED]))
    hider = Hider(tokenizer, draw(st.floats(0.01, 0.99)), draw(st.integers(0, 2**40)))
    rows, width = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    samples = np.array(draw(st.lists(st.integers(0, 2**50), min_size=rows, max_size=rows)))
    return hider, letters(rows, width, tokenizer, draw(st.integers(0, 99))), samples


@given(hiders(), st.booleans())
def test_exactly_so_many_are_hidden_and_the_targets_are_what_was_there(
    given_rows: tuple[Hider, np.ndarray, np.ndarray], training: bool
) -> None:
    hider, tokens, samples = given_rows
    hidden = hider.hide(tokens, samples, training=training)
    rows, width = tokens.shape
    count, edge = max(1, round(hider.fraction * width)), len(hider.frame) // 2
    assert hider.count(width) == count
    assert hidden.places.shape == hidden.targets.shape == (rows, count)
    assert (np.diff(hidden.places, axis=1) > 0).all()  # in order, each place once
    inside = hidden.inputs[:, edge : edge + width]
    assert np.array_equal(np.take_along_axis(tokens, hidden.places - edge, 1), hidden.targets)
    chosen = np.zeros(tokens.shape, bool)
    np.put_along_axis(chosen, hidden.places - edge, True, 1)
    assert np.array_equal(inside[~chosen], tokens[~chosen])  # nothing else is touched
    if not training:
        assert (inside[chosen] == hider.mask_id).all()
    if hider.frame:
        assert hidden.inputs.shape == (rows, width + 2) and hider.width(width + 2) == width
        assert (hidden.inputs[:, 0] == hider.frame[0]).all() and (hidden.inputs[:, -1] == hider.frame[1]).all()
        assert hidden.places.min() >= 1 and hidden.places.max() <= width


def parts(hidden: HiddenRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return hidden.inputs, hidden.places, hidden.targets


@given(hiders(), st.booleans(), st.integers(0, 5))
def test_any_split_into_micro_batches_hides_the_same(
    given_rows: tuple[Hider, np.ndarray, np.ndarray], training: bool, cut: int
) -> None:
    hider, tokens, samples = given_rows
    whole = hider.hide(tokens, samples, training=training)
    ranges = [part for part in (slice(0, cut), slice(cut, None)) if len(samples[part])]
    found = [hider.hide(tokens[part], samples[part], training=training) for part in ranges]
    for one, several in zip(parts(whole), zip(*map(parts, found), strict=True), strict=True):
        assert np.array_equal(one, np.concatenate(several))


def test_of_the_hidden_tokens_eight_in_ten_are_masked_one_replaced_and_one_left() -> None:
    rows, width = 400, 200
    hider = Hider(PLAIN, 0.15, seed=3)
    tokens = letters(rows, width)
    hidden = hider.hide(tokens, np.arange(rows), training=True)
    seen = np.take_along_axis(hidden.inputs, hidden.places, 1)
    masked, kept = seen == hider.mask_id, seen == hidden.targets
    replaced = ~masked & ~kept
    n = masked.size  # 12,000: three standard deviations are about 0.011 and 0.008
    assert n == rows * 30
    assert masked.mean() == pytest.approx(0.8, abs=0.011)
    # One of the 26 letters that replace a token is, by chance, the token itself.
    assert replaced.mean() == pytest.approx(0.1 * 25 / 26, abs=0.008)
    assert kept.mean() == pytest.approx(0.1 + 0.1 / 26, abs=0.009)
    assert set(seen[replaced].tolist()) == ORDINARY  # all letters and nothing else
    counts = np.bincount(hidden.places.ravel(), minlength=width)
    assert counts.min() > 60 * 0.5 and counts.max() < 60 * 1.6  # no place is preferred: 60 times each on average


def test_special_tokens_replace_nothing() -> None:
    hider = Hider(FRAMED, 0.9, seed=1)
    tokens = letters(200, 50, FRAMED)
    inside = hider.hide(tokens, np.arange(200), training=True).inputs[:, 1:-1]
    specials = set(FRAMED.special_tokens.values())
    assert specials & set(inside.ravel().tolist()) == {hider.mask_id}


def test_seeds_and_samples_hide_other_places() -> None:
    tokens = np.tile(letters(1, 64), (3, 1))
    one = Hider(PLAIN, 0.15, seed=1).hide(tokens, np.arange(3), training=True)
    other = Hider(PLAIN, 0.15, seed=2).hide(tokens, np.arange(3), training=True)
    assert len({tuple(row) for row in [*one.places.tolist(), *other.places.tolist()]}) == 6


@pytest.mark.parametrize("name", MASK_TOKENS)
def test_each_name_of_a_mask_token_is_known(name: str) -> None:
    tokenizer = CharTokenizer.train("abc", [name])
    assert Hider(tokenizer, 0.15).mask_id == tokenizer.special_tokens[name]


def test_a_tokenizer_without_a_mask_token_is_refused_with_the_way_to_add_one() -> None:
    with pytest.raises(UserError, match=r"the char tokenizer has no mask token.*tokenizer\.special_tokens.*\[MASK\]"):
        Hider(CharTokenizer.train("abc"), 0.15)
