"""The figures of written targets, on models whose mistakes are known."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from glassgpt.data.examples import Examples, open_examples, write_examples
from glassgpt.data.pairs import Ends
from glassgpt.evaluation import pairs as pairs_module
from glassgpt.evaluation.pairs import edit_distance, evaluate_pairs
from glassgpt.models import EncoderDecoderModel
from glassgpt.models.context import KVCache
from glassgpt.models.transformer import TransformerConfig
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers.char import CharTokenizer

CPU = Runtime(torch.device("cpu"), "float32")
TOKENIZER = CharTokenizer.train("abcdef", ["<|endoftext|>"])
ENDS = Ends.of(TOKENIZER)
BLOCK = 8


def naive(one: str, other: str) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        replaced = distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(replaced, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(one), len(other))


@given(st.text("abc", max_size=9), st.text("abc", max_size=9))
def test_the_edit_distance_is_the_recursive_one(one: str, other: str) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == naive(one, other)
    assert (edit_distance(one, other) == 0) == (one == other)


@given(st.text("ab", max_size=7), st.text("ab", max_size=7), st.text("ab", max_size=7))
def test_the_edit_distance_obeys_the_triangle(a: str, b: str, c: str) -> None:
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


@pytest.mark.parametrize(("one", "other", "edits"), [("", "", 0), ("kitten", "sitting", 3), ("abc", "", 3)])
def test_a_few_edit_distances(one: str, other: str, edits: int) -> None:
    assert edit_distance(one, other) == edits


class Copier(EncoderDecoderModel):
    """Copies the source token by token with a fixed certainty; every `wrong` id of it becomes an "f"."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        self.config = TransformerConfig(TOKENIZER.vocab_size, BLOCK, n_layer=1, n_head=1, n_embd=2)
        self.unused = nn.Parameter(torch.zeros(()))
        self.wrong = TOKENIZER.encode(wrong)
        self.dropped = nn.Dropout(0.5)

    def encode(self, source: Tensor, *, visible: Tensor | None = None) -> Tensor:
        return torch.nn.functional.one_hot(source, TOKENIZER.vocab_size).float()

    def features(
        self, target: Tensor, memory: Tensor, *, visible: Tensor | None = None, context: KVCache | None = None
    ) -> Tensor:
        start = 0
        if context is not None:  # written token by token: how many came before
            start = getattr(context, "written", 0)
            context.written = start + target.size(1)  # type: ignore[attr-defined]
        places = (start + torch.arange(target.size(1))).clamp(max=memory.size(1) - 1)
        ids = memory.argmax(-1)[:, places]
        for id in self.wrong:
            ids = torch.where(ids == id, TOKENIZER.encode("f")[0], ids)
        return 2.0 * torch.nn.functional.one_hot(ids, TOKENIZER.vocab_size).float()

    def head(self, features: Tensor) -> Tensor:
        return features

    def forward(self, source: Tensor, target: Tensor, *, visible: Tensor | None = None) -> Tensor:
        return self.head(self.features(target, self.encode(source), visible=visible))


def examples_of(folder: Path, texts: list[tuple[str, str]]) -> Examples:
    def encoded(text: str) -> list[int]:
        return [*TOKENIZER.encode(text), ENDS.stop_id]

    parts = [(encoded(source), encoded(target)) for source, target in texts]
    pairs = [(np.array(s + t), np.repeat([0, 1], [len(s), len(t)])) for s, t in parts]
    write_examples(folder, pairs, TOKENIZER.vocab_size)
    return open_examples(folder)


TEXTS = [("abc", "abc"), ("ab", "ab"), ("abcde", "abcde"), ("a", "a"), ("dcba", "dcba")]
CERTAIN = math.log(math.exp(2) + TOKENIZER.vocab_size - 1) - 2  # the loss of a right token


def test_a_perfect_copier_is_exact(tmp_path: Path) -> None:
    found = evaluate_pairs(Copier(), examples_of(tmp_path / "pairs", TEXTS), TOKENIZER, CPU)
    assert (found.exact, found.edit_distance, found.pairs) == (1.0, 0.0, 5)
    assert found.loss == pytest.approx(CERTAIN, rel=1e-5)
    assert found.figures() == {
        "val/loss": found.loss, "val/exact": 1.0, "val/edit_distance": 0.0, "val/pairs": 5
    }  # fmt: skip


@pytest.mark.parametrize("rows", [1, 2, 128])
def test_mistakes_are_counted_per_target_and_per_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(pairs_module, "ROWS", rows)
    found = evaluate_pairs(Copier(wrong="dc"), examples_of(tmp_path / "pairs", TEXTS), TOKENIZER, CPU)
    assert found.exact == pytest.approx(2 / 5)  # "ab" and "a" have neither of the letters
    assert found.edit_distance == pytest.approx(5 / 15)
    n_right = 15 - 5 + 5  # letters, and the five stops
    assert found.loss == pytest.approx((20 * (CERTAIN + 2) - 2 * n_right) / 20, rel=1e-5)


def test_what_goes_on_too_long_is_cut_at_the_block_size(tmp_path: Path) -> None:
    """Its stop is among the wrong ones: it writes letters up to the block size."""
    model = Copier()
    model.wrong = [ENDS.stop_id]
    found = evaluate_pairs(model, examples_of(tmp_path / "pairs", [("ab", "ab")]), TOKENIZER, CPU)
    assert (found.exact, found.edit_distance) == (0.0, pytest.approx((BLOCK - 2) / 2))


def test_a_part_of_the_pairs_is_evenly_spaced_and_the_same_at_every_call(tmp_path: Path) -> None:
    texts = [("c" if number % 4 == 0 else "a", "a" if number % 4 else "c") for number in range(40)]
    examples, model = examples_of(tmp_path / "pairs", texts), Copier(wrong="c")
    few = evaluate_pairs(model, examples, TOKENIZER, CPU, max_pairs=10)
    assert few.pairs == 10 and few.exact == 0.0  # every fourth: all of them have the letter
    assert few == evaluate_pairs(model, examples, TOKENIZER, CPU, max_pairs=10)
    assert evaluate_pairs(model, examples, TOKENIZER, CPU).exact == 0.75
    assert evaluate_pairs(model, examples, TOKENIZER, CPU, max_pairs=99).pairs == 40


def test_the_figures_of_a_model_that_has_diverged_are_nan(tmp_path: Path) -> None:
    class Diverged(Copier):
        def head(self, features: Tensor) -> Tensor:
            return features * math.nan

    found = evaluate_pairs(Diverged(), examples_of(tmp_path / "pairs", TEXTS), TOKENIZER, CPU)
    assert math.isnan(found.loss) and math.isnan(found.exact) and math.isnan(found.edit_distance)
    assert found.pairs == len(TEXTS)


def test_the_mode_is_restored(tmp_path: Path) -> None:
    model = Copier().train()
    evaluate_pairs(model, examples_of(tmp_path / "pairs", TEXTS), TOKENIZER, CPU)
    assert model.training and model.dropped.training
