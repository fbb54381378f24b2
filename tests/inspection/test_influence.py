"""The influence of a position is what a small change of its query, key or value does to the loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_models import DECODERS, C, H, V, build

from glassgpt.errors import UserError
from glassgpt.inspection.capture import capture_names
from glassgpt.inspection.edit import edit
from glassgpt.inspection.influence import influence

T, POSITION = 6, 3
IDS = [3, 1, 4, 1, 5, 9]
NO_ATTENTION = "this model has no attention: it has no queries, keys and values whose influence to measure"
ATTENTIVE = [name for name in DECODERS if any(".attn.q" in step for step in capture_names(build(name)))]


def loss(model: nn.Module, name: str, change: Tensor) -> float:
    with torch.no_grad(), edit(model, replace={name: change.__add__}):
        logits = model(torch.tensor([IDS]))[0, POSITION]
    return F.cross_entropy(logits, torch.tensor(IDS[POSITION + 1])).item()


def by_differences(model: nn.Module, name: str, head: int, position: int, size: int) -> float:
    """The norm of the gradient from two passes for each of the `size` numbers of the vector."""
    slopes = []
    for channel in range(size):
        change = torch.zeros(1, H if size < C else 1, T, size, dtype=torch.double)
        change[0, head, position, channel] = 1e-6
        slopes.append((loss(model, name, change) - loss(model, name, -change)) / 2e-6)
    return torch.tensor(slopes).norm().item()


@pytest.mark.parametrize("architecture", ATTENTIVE)
def test_it_is_the_norm_of_finite_differences(architecture: str) -> None:
    model = build(architecture).double()
    found = influence(model, IDS, POSITION)
    heads, last = (1 if architecture == "head" else H), max(1, len(model.blocks)) - 1
    for which in "qkv":
        values = getattr(found, which)
        assert values.shape == (last + 1, heads, T)
        for layer, head, position in {(0, 0, 1), (last, heads - 1, POSITION), (0, heads - 1, 0), (last, 0, 2)}:
            expected = by_differences(model, f"blocks.{layer}.attn.{which}", head, position, C // heads)
            assert values[layer, head, position].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("architecture", ATTENTIVE)
def test_later_positions_have_none(architecture: str) -> None:
    found = influence(build(architecture), IDS, POSITION)
    for values in (found.q, found.k, found.v):
        assert not values[..., POSITION + 1 :].any()
    assert not found.q[-1, :, :POSITION].any()  # in the last block, only the query of the position itself counts
    assert found.q[-1, :, POSITION].any()
    for values in (found.k, found.v):  # a head may have none: without norms, its softmax can be so sharp that it is 0
        assert (values[..., : POSITION + 1].amax(dim=(0, 1)) > 0).all()


def test_the_loss_is_that_of_the_next_token_or_of_the_target() -> None:
    model = build("gpt2").eval()
    with torch.no_grad():
        logprobs = model(torch.tensor([IDS]))[0].log_softmax(dim=-1)
    assert influence(model, IDS, 2).loss == pytest.approx(-logprobs[2, IDS[3]].item(), rel=1e-5)
    assert influence(model, IDS, T - 1, target=7).loss == pytest.approx(-logprobs[T - 1, 7].item(), rel=1e-5)
    same, other = influence(model, IDS, 2, target=IDS[3]), influence(model, IDS, 2, target=0)
    torch.testing.assert_close(same.q, influence(model, IDS, 2).q)
    assert not torch.allclose(same.q, other.q)


def test_the_model_collects_no_gradients() -> None:
    model = build("gpt2")
    influence(model, IDS, 0)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("architecture", "ids", "position", "sentence"),
    [
        ("averaging", IDS, 1, NO_ATTENTION),
        ("bigram", IDS, 1, NO_ATTENTION),
        ("gpt2", [], 0, "the text is empty: it must have at least one token"),
        ("gpt2", [1] * 13, 0, "the text has 13 tokens, more than the model's block_size of 12: use a shorter text"),
        ("gpt2", [1, V], 0, "token id 11 is outside the model's vocabulary of 11 ids"),
        ("gpt2", IDS, 6, "position 6 is outside the text, which has positions 0 to 5"),
        ("gpt2", IDS, -1, "position -1 is outside the text, which has positions 0 to 5"),
        ("gpt2", IDS, 5, "position 5 is the last one, so no token follows it: name the target whose loss counts"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_with_a_sentence(architecture: str, ids: list[int], position: int, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        influence(build(architecture), ids, position)
    assert str(error.value) == sentence
