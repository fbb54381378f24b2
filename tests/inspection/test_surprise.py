"""The loss of each token is the cross-entropy at its position, and their mean is what `evaluate` measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import DECODERS, V, build

from glassgpt.data.shards import TokenArray, write_shard
from glassgpt.errors import UserError
from glassgpt.evaluation.validation import evaluate
from glassgpt.inspection.surprise import losses_of, token_losses
from glassgpt.runtime.device import Runtime

BLOCK = 12


def text(length: int) -> list[int]:
    return torch.randint(V, (length,), generator=torch.Generator().manual_seed(length)).tolist()


@pytest.mark.parametrize("architecture", DECODERS)
def test_each_loss_is_the_cross_entropy_at_its_position(architecture: str) -> None:
    model, ids = build(architecture, dropout=0.5).train(), text(BLOCK)
    found = token_losses(model, ids, top=3)
    assert model.training
    with torch.no_grad():
        logits = model.eval()(torch.tensor([ids]))[0]
    expected = [F.cross_entropy(logits[t], torch.tensor(ids[t + 1])).item() for t in range(BLOCK - 1)]
    assert found.losses.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    order = np.argsort(-logits[:-1].numpy(), axis=-1)[:, :3]
    assert found.expected_ids.tolist() == order.tolist()
    probabilities = logits[:-1].softmax(dim=-1).gather(1, torch.from_numpy(order))
    torch.testing.assert_close(found.expected_probabilities, probabilities)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(2, 5 * BLOCK), stride=st.none() | st.integers(1, BLOCK - 1))
def test_the_mean_is_the_loss_that_evaluate_measures(
    tmp_path_factory: pytest.TempPathFactory, length: int, stride: int | None
) -> None:
    model, ids = build("gpt2"), text(length)
    path = tmp_path_factory.mktemp("ids") / "ids.bin"
    write_shard(path, ids, np.dtype(np.uint16))
    cpu = Runtime(torch.device("cpu"), "float32")
    measured = evaluate(model, TokenArray([path]), np.ones(V, dtype=int), cpu, stride=stride)
    found = token_losses(model, ids, stride=stride)
    assert found.losses.shape == (length - 1,) and measured.tokens == length - 1
    assert found.losses.double().mean().item() == pytest.approx(measured.loss, rel=1e-5)


def test_with_a_stride_a_long_text_has_context_at_every_position() -> None:
    model, ids, stride = build("gpt2"), text(40), 4
    found = token_losses(model, ids, stride=stride)
    for t in range(1, 40):
        first = 0 if t < BLOCK else t - BLOCK + 1 + (-(t - BLOCK + 1)) % stride  # of the first window that holds it
        with torch.no_grad():
            logits = model(torch.tensor([ids[first:t]]))[0, -1]
        assert found.losses[t - 1].item() == pytest.approx(
            F.cross_entropy(logits, torch.tensor(ids[t])).item(), rel=1e-4
        )


def test_one_token_has_no_losses() -> None:
    found = token_losses(build("gpt2"), [3], top=4)
    assert (found.losses.shape, found.expected_ids.shape, found.expected_probabilities.shape) == ((0,), (0, 4), (0, 4))


def test_no_more_ids_are_expected_than_there_are() -> None:
    found = token_losses(build("gpt2"), [3, 4, 5], top=500)
    assert found.expected_ids.sort(dim=-1).values.tolist() == [list(range(V))] * 2
    torch.testing.assert_close(found.expected_probabilities.sum(dim=-1), torch.ones(2))


def test_logits_that_are_there_need_no_further_pass() -> None:
    model, tokens = build("decoder"), torch.tensor([text(BLOCK)])
    with torch.no_grad():
        found = losses_of(model(tokens)[0, :-1], tokens[0, 1:])
    torch.testing.assert_close(found.losses, token_losses(model, tokens[0]).losses)


@pytest.mark.parametrize(
    ("ids", "options", "sentence"),
    [
        ([], {}, "the text is empty: it must have at least one token"),
        ([1, V], {}, "token id 11 is outside the model's vocabulary of 11 ids"),
        ([1, -1], {}, "token id -1 is outside the model's vocabulary of 11 ids"),
        ([1, 10**30], {}, f"token id {10**30} is outside the model's vocabulary of 11 ids"),
        ([1, 2], {"top": 0}, "top = 0 is out of range: it must be at least 1"),
        ([1, 2], {"stride": BLOCK}, "stride 12 is out of range: it must be at least 1 and below block_size = 12"),
    ],
)
def test_bad_input_is_answered_with_a_sentence(ids: list[int], options: dict[str, int], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        token_losses(build("gpt2"), ids, **options)
    assert str(error.value) == sentence
