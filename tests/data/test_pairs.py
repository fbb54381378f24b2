"""Pairs of a source and a target: the rules that make them, and batches that are a function of (seed, step)."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.data.examples import Examples, open_examples, write_examples
from glassgpt.data.pair_loader import STEP, PairLoader, PairRows, collate_pairs, pad_sources
from glassgpt.data.pairs import RULES, Ends, check_lengths, make_pairs, split_pair, split_pairs
from glassgpt.errors import UserError
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.char import CharTokenizer

ENDS = Ends(start_id=7, stop_id=9)
TEXT = st.text("abcdeXYé 1.,\n", max_size=80)

# The rules


def test_tab_takes_each_line_as_it_is() -> None:
    assert make_pairs("one\teins\n\n \ntwo words\tzwei Wörter", "tab") == [
        ("one", "eins"),
        ("two words", "zwei Wörter"),
    ]


@pytest.mark.parametrize("line", ["no tab", "\tno source", "no target\t", "a\tb\tc"])
def test_a_line_that_is_no_pair_is_named(line: str) -> None:
    with pytest.raises(UserError, match=r"line 3 of the text is not a pair.*one tab"):
        make_pairs(f"a\tb\n\n{line}\nc\td\n", "tab")


@given(TEXT)
def test_reverse_has_each_word_once(text: str) -> None:
    pairs = make_pairs(text, "reverse")
    assert all(target == source[::-1] for source, target in pairs)
    words = {word for word in "".join(c if c.isalpha() else " " for c in text).split() if len(word) > 1}
    assert Counter(source for source, _ in pairs) == Counter(words)


def test_the_order_of_words_is_not_that_of_the_text_nor_of_the_alphabet() -> None:
    words = [f"{a}{b}" for a in "abcdefgh" for b in "abcdefgh"]
    pairs = make_pairs(" ".join(words), "reverse")
    assert pairs == make_pairs(" ".join(reversed(words)), "reverse")
    sources = [source for source, _ in pairs]
    assert sources != words and sorted(sources) == words
    train, val = split_pairs(pairs, 0.25)
    assert not {source for source, _ in train} & {source for source, _ in val}
    assert len({source[0] for source, _ in val}) > 4  # not only the last words of the alphabet


def test_words_that_differ_only_in_case_stand_together() -> None:
    words = [f"{a}{b}" for a in "abcdefgh" for b in "abcdefgh"]
    sources = [source.lower() for source, _ in make_pairs(" ".join([*words, *map(str.title, words)]), "reverse")]
    assert sources[::2] == sources[1::2] and len(set(sources)) == len(words)


@given(TEXT)
def test_vowels_are_dropped_from_the_source(text: str) -> None:
    pairs = make_pairs(text, "vowels")
    bare = "".join(text.split())
    for source, target in pairs:
        assert source == "".join(c for c in target if c not in "aeiouAEIOU") and source.strip()
        assert len(target) <= 60 and "".join(target.split()) in bare
    sources = [source for source, _ in pairs]
    assert len(set(sources)) == len(sources)
    assert "".join("".join(sources).split()) or not re.sub(r"[aeiouAEIOU\s]", "", text)


def test_a_line_that_repeats_is_one_pair() -> None:
    pairs = make_pairs("FIRST:\nWho comes?\nSECOND:\nI.\nFIRST:\nYou.\n", "vowels")
    assert [target for _, target in pairs] == ["FIRST:", "Who comes?", "SECOND:", "I.", "You."]


def test_a_long_line_is_cut_between_words() -> None:
    words = [f"word{number}" for number in range(30)]
    targets = [target for _, target in make_pairs(" ".join(words), "vowels")]
    assert len(targets) == 4 and " ".join(targets).split() == words


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown data\.pairs 'reverze': did you mean 'reverse'\?"):
        make_pairs("a", "reverze")
    assert set(RULES) == {"tab", "reverse", "vowels"}


@given(st.integers(2, 50), st.floats(0.01, 0.99))
def test_a_split_keeps_every_pair_once(count: int, fraction: float) -> None:
    pairs = [(str(i), str(i)) for i in range(count)]
    n_train = int((1 - fraction) * count)
    if n_train in (0, count):
        with pytest.raises(UserError, match=f"{count} pairs cannot be split"):
            split_pairs(pairs, fraction)
        return
    train, val = split_pairs(pairs, fraction)
    assert [*train, *val] == pairs and len(train) == n_train


@pytest.mark.parametrize(("count", "counted"), [(0, "0 pairs"), (1, "1 pair")])
def test_too_few_pairs_are_refused(count: int, counted: str) -> None:
    with pytest.raises(UserError, match=f"^{counted} cannot be split .* give a longer text"):
        split_pairs([("a", "b")] * count, 0.1)


# The tokens at both ends


def test_char_and_bpe_start_and_stop_with_the_end_of_text() -> None:
    for tokenizer in (
        CharTokenizer.train("abc", ["<|endoftext|>"]),
        BPETokenizer.train("abc abc", 270, ["<|endoftext|>"]),
    ):
        end = tokenizer.special_tokens["<|endoftext|>"]
        assert Ends.of(tokenizer) == Ends(end, end)


def test_t5_starts_with_the_padding_and_stops_with_its_own_token() -> None:
    tokenizer = CharTokenizer.train("abc", ["<|endoftext|>", "<pad>", "</s>"])
    specials = tokenizer.special_tokens
    assert Ends.of(tokenizer) == Ends(specials["<pad>"], specials["</s>"])


def test_a_tokenizer_without_a_stop_is_refused_with_the_way_to_add_one() -> None:
    with pytest.raises(UserError, match=r"no token that ends a target.*special_tokens.*<\|endoftext\|>"):
        Ends.of(CharTokenizer.train("abc", ["<pad>"]))


# Batches


def make_examples(folder: Path, lengths: list[tuple[int, int]], seed: int = 0) -> Examples:
    """Pairs of random ids from 10 to 29, each part with the stop at its end: lengths without it."""
    draw = np.random.default_rng(seed)

    def pair(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
        parts = [np.append(draw.integers(10, 30, length), ENDS.stop_id) for length in (source, target)]
        return np.concatenate(parts), np.repeat([0, 1], [len(part) for part in parts])

    write_examples(folder, [pair(*each) for each in lengths], 30)
    return open_examples(folder)


@st.composite
def loaders(draw: st.DrawFn) -> PairLoader:
    block_size = draw(st.integers(2, 20))
    part = st.integers(0, block_size - 1)
    lengths = draw(st.lists(st.tuples(part, part), min_size=1, max_size=12))
    with tempfile.TemporaryDirectory() as name:  # the mapped files outlive their names
        examples = make_examples(Path(name, "examples"), lengths, draw(st.integers(0, 99)))
    return PairLoader(examples, ENDS, block_size, draw(st.integers(1, 6)), draw(st.integers(0, 2**40)))


def unpadded(rows: PairRows) -> list[tuple[list[int], list[int]]]:
    """The source and the target of each row, read off the tensors."""
    return [
        (source[seen].tolist(), target[mask].tolist())
        for source, seen, target, mask in zip(rows.source, rows.visible, rows.targets, rows.mask, strict=True)
    ]


@settings(max_examples=50)
@given(loaders(), st.integers(0, 5), st.data())
def test_any_range_of_rows_is_that_part_of_the_whole_batch(loader: PairLoader, step: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, loader.batch_rows), max_size=3)))
    bounds = [0, *cuts, loader.batch_rows]
    ranges = [(a, b) for a, b in pairwise(bounds) if a < b]
    whole = loader.rows(step)
    parts = [loader.rows(step, a, b) for a, b in ranges]
    assert [pair for part in parts for pair in unpadded(part)] == unpadded(whole)
    assert sum(part.n_tokens for part in parts) == whole.n_tokens  # the padding of a part does not count


@settings(max_examples=50)
@given(loaders(), st.integers(0, 3))
def test_each_epoch_visits_each_pair_once_in_an_order_of_its_own(loader: PairLoader, epoch: int) -> None:
    count, rows = len(loader.examples), loader.batch_rows
    first = epoch * count
    steps = range(first // rows, -(-(first + count) // rows))
    seen = [pair for step in steps for pair in unpadded(loader.rows(step))]
    seen = seen[first - steps[0] * rows :][:count]
    expected = [tuple(part.tolist() for part in split_pair(loader.examples, number)) for number in range(count)]
    assert sorted(seen) == sorted(expected)


def test_epochs_and_seeds_have_their_own_orders(tmp_path: Path) -> None:
    examples = make_examples(tmp_path / "examples", [(5, 5)] * 20)
    orders = [unpadded(PairLoader(examples, ENDS, 8, 20, seed).rows(epoch)) for seed in (1, 2) for epoch in (0, 1)]
    assert all(one != other for number, one in enumerate(orders) for other in orders[:number])


@settings(max_examples=50)
@given(loaders(), st.integers(0, 5))
def test_inputs_are_the_start_and_the_targets_before(loader: PairLoader, step: int) -> None:
    rows = loader.rows(step)
    assert (rows.inputs[:, 0] == ENDS.start_id).all()
    assert torch.equal(rows.inputs[:, 1:], rows.targets[:, :-1])
    for ids, mask in ((rows.source, rows.visible), (rows.targets, rows.mask)):
        width = ids.size(1)
        assert width <= loader.block_size and (width % STEP == 0 or width == loader.block_size)
        lengths = mask.sum(1)
        assert torch.equal(mask, torch.arange(width) < lengths[:, None])  # padding only at the end
        assert (ids[~mask] == 0).all() and lengths.max() > width - STEP
        assert (ids[torch.arange(len(ids)), lengths - 1] == ENDS.stop_id).all()
    assert rows.n_tokens == int(rows.mask.sum())


def test_what_is_too_long_is_refused_with_the_size_to_set(tmp_path: Path) -> None:
    examples = make_examples(tmp_path / "examples", [(3, 4), (2, 12), (30, 1), (9, 9)])
    with pytest.raises(UserError, match=r"has 31 tokens, and model\.block_size is 10: give it .*model\.block_size.*31"):
        PairLoader(examples, ENDS, 10, 2)
    check_lengths(examples, 31)  # the longest part counts, not the sum of both
    with pytest.raises(UserError, match="31"):
        check_lengths(examples, 30)


def test_rows_outside_the_batch_are_an_error(tmp_path: Path) -> None:
    loader = PairLoader(make_examples(tmp_path / "examples", [(3, 4)]), ENDS, 10, 2)
    for wrong in ((-1, 0, 1), (0, 1, 3), (0, 2, 1)):
        with pytest.raises(IndexError):
            loader.rows(*wrong)


def test_sources_alone_have_only_a_stop_to_write() -> None:
    sources = [np.array([10, 11, 9]), np.array([9])]
    rows = pad_sources(sources, ENDS, 4)
    assert rows.source.tolist() == [[10, 11, 9, 0], [9, 0, 0, 0]]
    assert rows.visible.tolist() == [[True, True, True, False], [True, False, False, False]]
    assert unpadded(rows) == [([10, 11, 9], [9]), ([9], [9])]


def test_a_batch_moves_as_a_whole() -> None:
    stop = np.array([9])
    moved = collate_pairs([(stop, stop)], ENDS, 4).to(torch.device("meta"))
    assert all(getattr(moved, name).is_meta for name in ("source", "visible", "inputs", "targets", "mask"))
