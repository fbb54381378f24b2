"""The loss is a sum and a weight, equal to a plain sum over the targets in float64."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from glassgpt.models.context import Documents
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.training.losses import Batch, next_token_loss


class Table(nn.Module):
    """The simplest model: a row of logits for each token."""

    def __init__(self, vocab_size: int = 5, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size, dtype=dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)


def build_table(dtype: torch.dtype = torch.float32) -> Table:
    torch.manual_seed(0)
    return Table(dtype=dtype)


def sum_by_hand(model: Table, inputs: Tensor, targets: Tensor, mask: Tensor) -> float:
    total = 0.0
    for token, target, trained_on in zip(*(x.flatten().tolist() for x in (inputs, targets, mask)), strict=True):
        logits = model.table.weight[token].double().tolist()
        total += trained_on * (math.log(sum(math.exp(logit) for logit in logits)) - logits[target])
    return total


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 1 << 30), st.booleans())
@settings(max_examples=25)
def test_it_is_the_sum_over_the_targets_that_are_trained_on(B: int, T: int, seed: int, masked: bool) -> None:
    model = build_table()
    draw = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randint(5, (2, B, T), generator=draw)
    mask = torch.randint(2, (B, T), generator=draw) if masked else torch.ones(B, T, dtype=torch.int64)
    loss = next_token_loss(model, Batch(inputs, targets, mask if masked else None))
    total, weight = loss.sum, loss.weight
    assert total.item() == pytest.approx(sum_by_hand(model, inputs, targets, mask), rel=1e-6, abs=1e-6)
    assert float(weight) == mask.sum()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_a_mask_may_be_of_any_type(dtype: torch.dtype) -> None:
    model, inputs, targets = build_table(), torch.tensor([[0, 1, 2]]), torch.tensor([[1, 2, 3]])
    mask = torch.tensor([[1, 0, 1]])
    loss = next_token_loss(model, Batch(inputs, targets, mask.to(dtype)))
    total, weight = loss.sum, loss.weight
    assert float(weight) == 2
    assert total.item() == pytest.approx(sum_by_hand(model, inputs, targets, mask), rel=1e-6)


def test_a_masked_target_has_no_gradient() -> None:
    model = build_table()
    loss = next_token_loss(model, Batch(torch.tensor([[0, 1]]), torch.tensor([[2, 3]]), mask=torch.tensor([[1, 0]])))
    total = loss.sum
    total.backward()
    assert model.table.weight.grad is not None
    assert model.table.weight.grad.abs().sum(dim=1).gt(0).tolist() == [True, False, False, False, False]


def test_logits_of_low_precision_are_summed_in_float32() -> None:
    """10,000 bfloat16 losses of about 2 nats would be summed to a multiple of 128."""
    model = build_table(torch.bfloat16)
    draw = torch.Generator().manual_seed(1)
    inputs, targets = torch.randint(5, (2, 10, 1000), generator=draw)
    loss = next_token_loss(model, Batch(inputs, targets))
    total = loss.sum
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(sum_by_hand(model, inputs, targets, torch.ones_like(targets)), rel=1e-5)


def test_a_chunk_of_what_has_no_head_of_its_own_is_refused() -> None:
    tokens = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(TypeError, match="`features` and `head`, which Table does not have"):
        next_token_loss(build_table(), Batch(tokens, tokens), chunk=1)


@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 25), st.booleans())
@settings(max_examples=15)
def test_in_chunks_it_has_the_same_sum_and_gradients(B: int, T: int, chunk: int, masked: bool) -> None:
    draw = torch.Generator().manual_seed(B * T)
    tokens = torch.randint(11, (B, T + 1), generator=draw)
    mask = torch.randint(2, (B, T), generator=draw) if masked else None
    batch = Batch(tokens[:, :-1], tokens[:, 1:], mask)
    results = []
    for held in (0, chunk):
        torch.manual_seed(0)
        model = GPT2(GPT2Config(11, block_size=8, n_layer=1, n_head=2, n_embd=8, padded_vocab_size=16))
        loss = next_token_loss(model, batch, build_context=partial(Documents, eot_id=0), chunk=held)
        total, weight = loss.sum, loss.weight
        total.backward()
        results.append((total.detach(), float(weight), [parameter.grad for parameter in model.parameters()]))
    (whole, weight, gradients), (chunked, weight_too, gradients_too) = results
    torch.testing.assert_close(chunked, whole)
    assert weight == weight_too
    for gradient, gradient_too in zip(gradients, gradients_too, strict=True):
        torch.testing.assert_close(gradient_too, gradient, atol=1e-6, rtol=1e-5)


def test_in_chunks_it_never_holds_all_logits() -> None:
    held = []
    model = GPT2(GPT2Config(vocab_size=16, block_size=8, n_layer=1, n_head=2, n_embd=8))
    head = model.head
    model.head = lambda features: (held.append(len(features)), head(features))[1]  # type: ignore[method-assign]
    tokens = torch.zeros(3, 8, dtype=torch.int64)
    next_token_loss(model, Batch(tokens, tokens), chunk=10).sum.backward()
    assert held == [10, 10, 4, 4, 10, 10]  # forward, and again backward
