"""What an encoder guesses for a hidden token is what it computes when that token is hidden."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from toy_models import T, V, build

from glassgpt.errors import UserError
from glassgpt.inspection.ablation import effect, head_effects
from glassgpt.inspection.guesses import encode_for_encoder, guesses_of, hidden_places, mask_id_of
from glassgpt.inspection.lens import logit_lens
from glassgpt.inspection.surprise import token_losses
from glassgpt.inspection.trace import trace
from glassgpt.models.bert import Bert
from glassgpt.tokenizers.char import CharTokenizer

MASK = V - 1
IDS = torch.randint(V - 1, (T,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.fixture
def bert() -> Bert:
    return cast(Bert, build("bert").eval())


@torch.no_grad()
def test_each_token_is_hidden_for_its_own_guess(bert: Bert) -> None:
    found = guesses_of(bert, IDS, MASK, top=V)
    assert found.positions == tuple(range(T)) and found.hidden
    for at in range(T):
        hidden = torch.tensor([IDS])
        hidden[0, at] = MASK
        expected = bert(hidden)[0, at].softmax(dim=-1)
        torch.testing.assert_close(found.probabilities[at], expected[found.ids[at]])
        assert float(found.own_probabilities[at]) == pytest.approx(float(expected[IDS[at]]), rel=1e-4)
    assert guesses_of(bert, IDS, MASK, [2, 5], top=1).ids.tolist() == found.ids[[2, 5], :1].tolist()


@torch.no_grad()
def test_a_text_that_hides_tokens_is_read_as_it_is(bert: Bert) -> None:
    ids = [MASK if at in (1, 6) else id for at, id in enumerate(IDS)]
    found = guesses_of(bert, ids, MASK)
    expected = bert(torch.tensor([ids]))[0].softmax(dim=-1)
    assert found.positions == (1, 6) == tuple(hidden_places(ids, MASK))
    torch.testing.assert_close(found.probabilities, expected[[1, 6]].topk(5).values)
    assert found.own_probabilities.isnan().all()
    other = guesses_of(bert, ids, MASK, [0])  # beside those that the text hides
    both = torch.tensor([[MASK, *ids[1:]]])
    torch.testing.assert_close(other.probabilities[0], bert(both)[0, 0].softmax(dim=-1).topk(5).values)


@torch.no_grad()
def test_without_a_mask_token_the_text_is_read_as_it_is(bert: Bert) -> None:
    found = guesses_of(bert, IDS, None)
    assert not found.hidden
    torch.testing.assert_close(found.probabilities, bert(torch.tensor([IDS]))[0].softmax(dim=-1).topk(5).values)


def test_what_cannot_be_guessed(bert: Bert) -> None:
    with pytest.raises(UserError, match="there is no position 9: the text has positions 0 to 8"):
        guesses_of(bert, IDS, MASK, [9])
    with pytest.raises(UserError, match="predicts what comes next, and no hidden tokens"):
        guesses_of(build("gpt2"), IDS, MASK)
    for ask in (lambda: token_losses(bert, IDS), lambda: head_effects(bert, IDS), lambda: effect(bert, IDS)):
        with pytest.raises(UserError, match=r"an encoder sees the whole text .* so a text has no loss"):
            ask()


def test_the_lens_of_an_encoder_is_of_the_token_itself(bert: Bert) -> None:
    seen = trace(bert, IDS)
    lens = logit_lens(seen)
    probabilities = seen.logits[0].softmax(dim=-1)
    torch.testing.assert_close(lens.target_probabilities[-1], probabilities[range(T), IDS])
    other = logit_lens(seen, [3, 4], targets=[0, 2])
    torch.testing.assert_close(other.target_probabilities[-1], probabilities[[3, 4], [0, 2]])


def test_a_text_is_encoded_as_an_encoder_reads_it() -> None:
    letters = CharTokenizer(sorted("abc []MASK"), ["[MASK]"])
    assert mask_id_of(letters) == letters.special_tokens["[MASK]"]
    assert letters.decode(encode_for_encoder(letters, "a[MASK]c")) == "a[MASK]c"
    assert len(encode_for_encoder(letters, "a[MASK]c")) == 3
    framed = CharTokenizer(sorted("abc []MASKCLEP"), ["[MASK]", "[CLS]", "[SEP]"])
    for text in ("ab", "[CLS]ab", "ab[SEP]", "[CLS]ab[SEP]"):
        assert framed.decode(encode_for_encoder(framed, text)) == "[CLS]ab[SEP]"
    assert encode_for_encoder(framed, "") == []
    assert mask_id_of(CharTokenizer(["a"], [])) is None
