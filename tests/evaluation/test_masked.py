"""Hidden tokens of a split: the model's figures and those of counting, each against the plainest way to compute it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.data.masking import VALIDATION_SEED, Hider
from glassgpt.data.shards import TokenArray
from glassgpt.errors import UserError
from glassgpt.evaluation import masked as masked_module
from glassgpt.evaluation.masked import MaskedEvaluation, count_masked, evaluate_masked
from glassgpt.evaluation.ngram import NGramModel
from glassgpt.models.bert import Bert, BertConfig
from glassgpt.runtime.device import Runtime
from glassgpt.tokenizers.char import CharTokenizer

CPU = Runtime(torch.device("cpu"), "float32")
BLOCK = 8
PLAIN = CharTokenizer.train("abcdefgh", ["[MASK]"])
FRAMED = CharTokenizer.train("abcdefgh", ["[CLS]", "[SEP]", "[MASK]"])


class FakeTokens:
    """A token array in memory."""

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def slice(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start <= stop <= len(self.ids)
        return self.ids[start:stop]


def array(ids: np.ndarray | list[int]) -> TokenArray:
    return FakeTokens(np.array(ids))  # type: ignore[return-value]


def build(tokenizer: CharTokenizer = PLAIN, dropout: float = 0.0) -> Bert:
    torch.manual_seed(0)
    model = Bert(BertConfig(tokenizer.vocab_size, BLOCK, n_layer=2, n_head=2, n_embd=16, dropout=dropout))
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.4)
    return model


def letters(n: int, tokenizer: CharTokenizer = PLAIN, seed: int = 0) -> np.ndarray:
    ids = np.array(tokenizer.encode("abcdefgh"))
    return ids[np.random.default_rng(seed).choice(8, size=n, p=[0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])]


def hidden_places(hider: Hider, ids: np.ndarray) -> list[tuple[int, np.ndarray, int]]:
    """Window by window, as (its number, its tokens, a hidden place in it)."""
    width, found = hider.width(BLOCK), []
    for number in range(math.ceil(len(ids) / width)):
        window = ids[number * width : (number + 1) * width]
        hidden = hider.hide(window[None], np.array([number]), training=False)
        found += [(number, window, int(place) - len(hider.frame) // 2) for place in hidden.places[0]]
    return found


def by_hand(model: Bert, hider: Hider, ids: np.ndarray) -> MaskedEvaluation:
    """One hidden token after another, in float64."""
    model = model.double().eval()
    nats, right, places = 0.0, 0, hidden_places(hider, ids)
    for number, window, place in places:
        hidden = {other for n, _, other in places if n == number}
        shown = [hider.mask_id if at in hidden else int(id) for at, id in enumerate(window)]
        row = [hider.frame[0], *shown, hider.frame[1]] if hider.frame else shown
        logits = model(torch.tensor([row]))[0, place + len(hider.frame) // 2].tolist()
        true = int(window[place])
        nats += math.log(sum(math.exp(x) for x in logits)) - logits[true]
        right += logits.index(max(logits)) == true
    return MaskedEvaluation(nats / len(places), right / len(places), len(places))


@settings(max_examples=25)
@given(st.integers(1, 40), st.floats(0.05, 0.9), st.sampled_from([PLAIN, FRAMED]), st.integers(1, 4))
def test_loss_and_accuracy_are_those_of_one_token_after_another(
    n: int, fraction: float, tokenizer: CharTokenizer, rows: int
) -> None:
    hider, ids = Hider(tokenizer, fraction, VALIDATION_SEED), letters(n, tokenizer)
    found = evaluate_masked(build(tokenizer), array(ids), hider, CPU, rows=rows)
    expected = by_hand(build(tokenizer), hider, ids)
    assert found.tokens == expected.tokens
    assert found.accuracy == pytest.approx(expected.accuracy, abs=1e-9)
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)


def test_a_part_of_the_split_is_the_same_at_every_call() -> None:
    model, hider, ids = build(), Hider(PLAIN, 0.25), array(letters(20 * BLOCK))
    few = evaluate_masked(model, ids, hider, CPU, max_tokens=5 * BLOCK)
    assert few == evaluate_masked(model, ids, hider, CPU, max_tokens=5 * BLOCK, rows=64)
    assert few.tokens == 5 * 2 and evaluate_masked(model, ids, hider, CPU).tokens == 20 * 2
    assert few.figures() == {"val/loss": few.loss, "val/accuracy": few.accuracy, "val/hidden": 10}


def test_the_mode_is_restored_and_dropout_is_off_meanwhile() -> None:
    model, hider, ids = build(dropout=0.5), Hider(PLAIN, 0.25), array(letters(40))
    assert evaluate_masked(model.train(), ids, hider, CPU) == evaluate_masked(model, ids, hider, CPU)
    assert model.training and model.blocks[0].training


def test_nothing_to_hide_and_foreign_ids_are_refused() -> None:
    hider = Hider(PLAIN, 0.15)
    with pytest.raises(UserError, match="cannot evaluate on 0 tokens"):
        evaluate_masked(build(), array([]), hider, CPU)
    with pytest.raises(UserError, match="token id 99 in the data to evaluate on is outside the vocabulary"):
        evaluate_masked(build(), array([1, 99, 2]), hider, CPU)


@settings(max_examples=25)
@given(st.integers(1, 60), st.floats(0.05, 0.9), st.sampled_from([PLAIN, FRAMED]), st.integers(0, 9))
def test_counting_is_what_a_naive_count_finds(n: int, fraction: float, tokenizer: CharTokenizer, seed: int) -> None:
    hider, val, train = Hider(tokenizer, fraction), letters(n, tokenizer, seed), letters(300, tokenizer, seed + 100)
    found = count_masked(array(train), array(val), hider, BLOCK, tokenizer.vocab_size)
    most = int(np.bincount(train).argmax())
    width = hider.width(BLOCK)
    places = [(number * width + place, int(window[place])) for number, window, place in hidden_places(hider, val)]
    assert found.most_frequent == pytest.approx(sum(true == most for _, true in places) / len(places))
    ngram = NGramModel.fit(array(train), tokenizer.vocab_size, 5)
    guesses = [
        int(ngram.probabilities(val[:at])[-1].argmax()) if at else most  # given all tokens before the place
        for at, _ in places
    ]
    right = sum(guess == true for guess, (_, true) in zip(guesses, places, strict=True))
    assert found.ngram == pytest.approx(right / len(places))


def test_counting_leaves_out_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_module, "MOST_PROBABILITIES", 10)
    found = count_masked(array(letters(50)), array(letters(20)), Hider(PLAIN, 0.15), BLOCK, PLAIN.vocab_size)
    assert found.ngram is None and 0 <= found.most_frequent <= 1
