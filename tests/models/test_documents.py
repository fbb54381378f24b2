"""Documents that share a row get the logits, losses and gradients that they get in rows of their own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glassgpt.data.documents import Piece
from glassgpt.data.encoders import encode_pieces
from glassgpt.models.context import Documents
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.runs.config import apply_overrides, document_eot_id, load_recipe, parse_run_config
from glassgpt.tokenizers.base import END_OF_TEXT
from glassgpt.tokenizers.bpe import BPETokenizer
from glassgpt.tokenizers.printable import BYTE_ORDER
from glassgpt.training.losses import Batch, next_token_loss

SEPARATOR = 0
documents = st.lists(st.lists(st.integers(1, 10), max_size=6), min_size=1, max_size=4)


def build_model() -> GPT2:
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size=11, block_size=40, n_layer=2, n_head=2, n_embd=16))
    for parameter in model.parameters():  # far from the small first weights, where little would be seen of a leak
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def pack(texts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """One row: a eot_id before each document, and one at the end as the last target."""
    ids = [id for text in texts for id in (SEPARATOR, *text)] + [SEPARATOR]
    row = torch.tensor([ids])
    return row[:, :-1], row[:, 1:]


@given(documents)
@settings(max_examples=30)
def test_each_document_gets_the_logits_that_it_gets_alone(texts: list[list[int]]) -> None:
    model = build_model()
    inputs, _ = pack(texts)
    packed = model(inputs, context=Documents(inputs, SEPARATOR))[0]
    alone = torch.cat([model(pack([text])[0])[0] for text in texts])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


def by_separator(tokens: Tensor) -> Documents:
    return Documents(tokens, SEPARATOR)


@given(documents)
@settings(max_examples=15)
def test_loss_and_gradients_are_the_sums_of_those_of_the_documents_alone(texts: list[list[int]]) -> None:
    results = []
    for rows in ([texts], [[text] for text in texts]):
        model = build_model()
        total = torch.zeros(())
        for row in rows:
            total = total + next_token_loss(model, Batch(*pack(row)), build_context=by_separator).sum
        total.backward()
        results.append((total.detach(), [parameter.grad for parameter in model.parameters()]))
    (one, gradients), (other, expected) = results
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("specials", [(END_OF_TEXT,), ("<s>",), ("<s>", END_OF_TEXT)])
def test_documents_as_data_prepare_packs_them_get_the_logits_that_they_get_alone(specials: tuple[str, ...]) -> None:
    """Whichever token begins them: end-of-text, the tokenizer's bos_token, or both."""
    bos = "<s>" if "<s>" in specials else None
    tokenizer = BPETokenizer(dict(enumerate(BYTE_ORDER)), [], specials, bos_token=bos)
    config = parse_run_config(apply_overrides(load_recipe("gpt2-mini"), ["data.document_mask=true"]))
    eot_id = document_eot_id(config, tokenizer)
    assert eot_id is not None
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size=tokenizer.vocab_size, block_size=40, n_layer=2, n_head=2, n_embd=16))
    rows = [encode_pieces([Piece(text, True, "", 0)], tokenizer).tolist() for text in ("one", "number two", "3")]
    packed = torch.tensor([[id for row in rows for id in row]])
    logits = model(packed, context=Documents(packed, eot_id))[0]
    torch.testing.assert_close(logits, torch.cat([model(torch.tensor([row]))[0] for row in rows]), atol=1e-5, rtol=1e-5)


def test_a_row_that_begins_within_a_document_counts_from_its_start() -> None:
    tokens = torch.tensor([[5, 6, 0, 7, 8, 0, 0, 9], [1, 2, 3, 4, 5, 6, 7, 8]])
    seen = Documents(tokens, SEPARATOR)
    assert seen.positions(8, tokens.device).tolist() == [[0, 1, 0, 1, 2, 0, 0, 1], list(range(8))]
    assert seen.mask.shape == (2, 1, 8, 8)
    assert seen.mask[0, 0, 4].tolist() == [False, False, True, True, True, False, False, False]
    assert torch.equal(seen.mask[1, 0], torch.ones(8, 8, dtype=torch.bool).tril())


def test_documents_may_begin_with_any_token() -> None:
    tokens = torch.tensor([[5, 6, 0, 7, 8, 0, 0, 9]])
    by_token, by_starts = Documents(tokens, SEPARATOR), Documents.from_starts(tokens == SEPARATOR)
    assert torch.equal(by_token.mask, by_starts.mask)
    assert torch.equal(by_token.positions(8, tokens.device), by_starts.positions(8, tokens.device))


def test_without_the_mask_a_document_hears_of_the_one_before() -> None:
    model = build_model()
    inputs, _ = pack([[1, 2, 3], [4, 5]])
    assert not torch.allclose(model(inputs), model(inputs, context=Documents(inputs, SEPARATOR)), atol=1e-2)


def test_what_is_watched_is_masked_too() -> None:
    model = build_model()
    inputs, _ = pack([[1, 2, 3], [4, 5]])
    cache = Documents(inputs, SEPARATOR)
    fused = model(inputs, context=cache)
    patterns: list[Tensor] = []
    for block in model.blocks:
        block.attn.inner.hook = lambda name, value: patterns.append(value) if name == "pattern" else None
    torch.testing.assert_close(model(inputs, context=cache), fused, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(pattern > 0, cache.mask.expand_as(pattern)) for pattern in patterns)
