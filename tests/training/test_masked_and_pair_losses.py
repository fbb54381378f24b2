"""The losses of encoders and encoder-decoders: those of all positions, at the places that count."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glassgpt.costs.typical import loss_function, random_batch, targets_per_row
from glassgpt.data.pair_loader import PairRows
from glassgpt.models import ARCHITECTURES, EncoderDecoderModel
from glassgpt.models.bert import Bert, BertConfig
from glassgpt.training.losses import MaskedBatch, hidden_logits, masked_token_loss, next_token_loss, pair_loss

V, T = 23, 12
SIZES = {"vocab_size": V, "block_size": T, "n_layer": 2, "n_head": 2, "n_embd": 16}


def build_bert() -> Bert:
    torch.manual_seed(0)
    return Bert(BertConfig(**SIZES))


def build_pair_model(architecture: str) -> EncoderDecoderModel:
    torch.manual_seed(0)
    model = ARCHITECTURES[architecture].model(ARCHITECTURES[architecture].config(**SIZES))
    assert isinstance(model, EncoderDecoderModel)
    return model


def gradients(model: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_the_loss_of_hidden_tokens_is_that_of_all_logits_at_their_places() -> None:
    model, draw = build_bert(), torch.Generator().manual_seed(1)
    inputs = torch.randint(V, (3, T), generator=draw)
    places = torch.stack([torch.randperm(T, generator=draw)[:4].sort().values for _ in range(3)])
    targets = torch.randint(V, (3, 4), generator=draw)
    batch = MaskedBatch(inputs, places, targets)
    logits = model(inputs)  # (B, T, V)
    at = logits[torch.arange(3)[:, None], places]  # (B, K, V)
    assert torch.allclose(hidden_logits(model, batch), at, atol=1e-6)
    expected = F.cross_entropy(at.flatten(0, 1), targets.flatten(), reduction="sum")
    loss = masked_token_loss(model, batch)
    assert loss.weight == 12 and batch.n_tokens == 3 * T
    assert loss.sum.item() == pytest.approx(expected.item(), rel=1e-6)
    right, of = loss.figures["accuracy"]
    assert (int(right), of) == (int((at.argmax(-1) == targets).sum()), 12)
    found, wanted = gradients(model, loss.sum), gradients(model, expected)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name


def pair_rows(width: int, more: int = 0) -> PairRows:
    """Two pairs with sources of 5 and 3 ids, targets of 4 and 6, padded with junk to `width` positions."""
    draw = torch.Generator().manual_seed(2)
    junk = 1 + more  # the id at padding must not matter either
    source, targets = torch.full((2, width), junk), torch.full((2, width), junk)
    visible, mask = torch.zeros(2, width, dtype=torch.bool), torch.zeros(2, width, dtype=torch.bool)
    for row, (n_source, n_target) in enumerate([(5, 4), (3, 6)]):
        source[row, :n_source] = torch.randint(V, (n_source,), generator=draw)
        targets[row, :n_target] = torch.randint(V, (n_target,), generator=draw)
        visible[row, :n_source], mask[row, :n_target] = True, True
    inputs = torch.cat([torch.zeros(2, 1, dtype=torch.int64), targets[:, :-1]], 1)
    return PairRows(source, visible, inputs, targets, mask)


@pytest.mark.parametrize("architecture", ["transformer", "t5"])
def test_padding_changes_neither_the_loss_nor_the_gradient(architecture: str) -> None:
    model = build_pair_model(architecture)
    narrow = pair_loss(model, pair_rows(6))
    assert float(narrow.weight) == 10 == pair_rows(6).n_tokens
    expected = gradients(model, narrow.sum)
    for width, more in ((6, 3), (12, 0), (12, 3)):
        wide = pair_loss(model, pair_rows(width, more))
        assert wide.sum.item() == pytest.approx(narrow.sum.item(), rel=1e-5)
        assert wide.weight == narrow.weight and pair_rows(width).n_tokens == 10
        for name, gradient in gradients(model, wide.sum).items():
            assert torch.allclose(gradient, expected[name], atol=2e-5), (name, width)


@pytest.mark.parametrize("architecture", ["transformer", "t5"])
def test_the_loss_of_pairs_is_a_sum_over_each_pair_alone(architecture: str) -> None:
    """By hand: each target given the true ones before it."""
    model = build_pair_model(architecture).double().eval()
    rows, total = pair_rows(8), 0.0
    for row in range(2):
        source, target = rows.source[row][rows.visible[row]][None], rows.targets[row][rows.mask[row]]
        inputs = torch.cat([torch.zeros(1, dtype=torch.int64), target[:-1]])[None]
        for place, true in enumerate(target.tolist()):
            logits = model(source, inputs[:, : place + 1])[0, -1].tolist()
            total += math.log(sum(math.exp(x) for x in logits)) - logits[true]
    assert pair_loss(model.train(), rows).sum.item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize(
    ("architecture", "loss", "targets"),
    [("gpt2", next_token_loss, T), ("bert", masked_token_loss, 2), ("t5", pair_loss, T), ("transformer", pair_loss, T)],
)
def test_a_typical_batch_is_that_of_the_models_kind(architecture: str, loss: object, targets: int) -> None:
    model = ARCHITECTURES[architecture].model(ARCHITECTURES[architecture].config(**SIZES))
    assert loss_function(model) is loss and targets_per_row(model) == targets
    batch = random_batch(model, 3, torch.device("cpu"))
    assert batch.n_tokens == 3 * T
    result = loss_function(model)(model, batch)
    assert float(result.weight) == 3 * targets and torch.isfinite(result.sum)
