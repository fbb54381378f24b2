"""The gradient of a large tied embedding: that of the head, with the looked-up rows added in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.modern import Modern, ModernConfig
from glassgpt.runtime.device import build_runtime
from glassgpt.runtime.parallel import LARGE_TABLE
from glassgpt.training.fit import train_step
from glassgpt.training.losses import Batch, Loss, next_token_loss
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer


def build(vocab_size: int = LARGE_TABLE) -> GPT2:
    torch.manual_seed(0)
    return GPT2(GPT2Config(vocab_size, 16, n_layer=1, n_head=2, n_embd=8))


def draw(vocab_size: int = LARGE_TABLE) -> Batch:
    tokens = torch.randint(vocab_size, (3, 13), generator=torch.Generator().manual_seed(1))
    tokens[0, :4] = tokens[1, 5]  # rows that are looked up several times
    return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("passes", [1, 3])
def test_the_gradient_is_that_of_autograd_up_to_rounding(chunk: int | None, passes: int) -> None:
    def gradient(model: Any, call: Any) -> Tensor:
        for _ in range(passes):
            call(draw()).sum.backward()
        found: Tensor = model.token_embedding.weight.grad
        return found

    def loss(model: Any, batch: Batch) -> Loss:
        return next_token_loss(model, batch, chunk=chunk)

    plain, model = build(), build()
    wrapped = build_runtime("cpu").wrap(model, loss)
    assert model.token_embedding.sparse and not plain.token_embedding.sparse
    found, expected = gradient(model, wrapped), gradient(plain, lambda batch: loss(plain, batch))
    assert not found.is_sparse
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_loss_without_the_head_trains_the_same() -> None:
    def loss(model: Any, batch: Batch) -> Loss:
        return Loss(model.features(batch.inputs).square().sum(), 1.0)

    updated = []
    for vocab_size in (LARGE_TABLE, LARGE_TABLE - 1):
        model, runtime = build(LARGE_TABLE), build_runtime("cpu")
        wrapped = runtime.wrap(model, loss)
        model.token_embedding.sparse = vocab_size == LARGE_TABLE
        optimizer = build_optimizer(model, OptimizerConfig(lr=0.01))
        train_step(
            wrapped, optimizer, runtime.build_scaler(), [draw(), draw()], runtime,
            grad_clip=1.0, seed=None, step=0, expected_weight=1.0,
        )  # fmt: skip
        updated.append(model.token_embedding.weight.detach())
    torch.testing.assert_close(updated[0], updated[1], rtol=1e-5, atol=1e-6)


def test_small_and_untied_tables_stay_as_they_are() -> None:
    for model in (build(LARGE_TABLE - 1), Modern(ModernConfig(LARGE_TABLE, 16, n_layer=1, n_head=2, n_embd=8))):
        build_runtime("cpu").wrap(model, next_token_loss)
        assert not model.token_embedding.sparse
