"""The balance of experts: its value, its gradient, and that it does not depend on how a batch is split."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.models.gpt_oss import GPTOss, GPTOssConfig
from glassgpt.runtime.device import build_runtime
from glassgpt.training.balance import BalancedLoss, balance_of
from glassgpt.training.fit import train_step
from glassgpt.training.losses import Batch, Loss, next_token_loss

V, B, T, E, K = 20, 6, 9, 5, 2
CONFIG = GPTOssConfig(
    V, T, n_layer=3, n_head=2, n_embd=16, head_size=8, n_hidden=8, n_expert=E, n_active=K, band_width=4
)
COEFFICIENT = 0.1


def build() -> GPTOss:
    torch.manual_seed(0)
    model = GPTOss(CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "norm" in name else 0.0, std=0.3)
    return model


def some_batch(masked: bool = False) -> Batch:
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(V, (B, T + 1), generator=draw)
    mask = (torch.rand(B, T, generator=draw) < torch.rand(B, 1, generator=draw)).float() if masked else None
    return Batch(tokens[:, :-1], tokens[:, 1:], mask)


def rows(batch: Batch, first: int, last: int) -> Batch:
    return Batch(*(None if part is None else part[first:last] for part in (batch.inputs, batch.targets, batch.mask)))


def by_loops(scores: np.ndarray, k: int) -> list[float]:
    """The balance of each row of scores (B, T, E), number by number: the independent reference."""
    found = []
    for row in scores.astype(np.float64):
        T, E = row.shape
        frequency, probability = np.zeros(E), np.zeros(E)
        for token in row:
            for expert in sorted(range(E), key=lambda e: -token[e])[:k]:
                frequency[expert] += E / (k * T)
            probability += np.exp(token) / np.exp(token).sum() / T
        found.append(float(frequency @ probability))
    return found


@pytest.mark.parametrize("k", [1, 2, 4])
def test_it_is_its_formula_in_each_row(k: int) -> None:
    scores = 3 * torch.randn(4, 11, 6, generator=torch.Generator().manual_seed(k))
    found = balance_of(scores, scores.topk(k).indices)
    assert found.tolist() == pytest.approx(by_loops(scores.numpy(), k), rel=1e-5)


def test_it_is_1_if_all_experts_serve_equally_and_largest_if_few_serve_all() -> None:
    even = 50.0 * torch.eye(4)[None]  # token t chooses expert t
    assert balance_of(even, even.topk(1).indices).tolist() == [1.0]
    same = torch.tensor([40.0, 40.0, 0.0, 0.0]).expand(1, 7, 4)
    assert balance_of(same, same.topk(2).indices).tolist() == [2.0]


def test_low_precision_is_counted_in_float32() -> None:
    scores = torch.randn(1, 1000, 3, generator=torch.Generator().manual_seed(0))
    scores[..., 0] += 3
    found = balance_of(scores.bfloat16(), scores.topk(1).indices)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(by_loops(scores.numpy(), 1), rel=1e-2)


def sums(loss: Loss) -> tuple[float, float, float]:
    assert loss.penalty is not None
    figure, weight = loss.figures["balance"]
    assert weight is loss.weight
    return loss.sum.item(), loss.penalty.item(), float(figure)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chunk", [None, 7])
def test_the_penalty_is_the_balance_of_every_block_for_each_target(masked: bool, chunk: int | None) -> None:
    model, batch = build(), some_batch(masked)
    plain = partial(next_token_loss, chunk=chunk)
    expected = plain(model, batch)
    total = 0.0
    scores: list[Tensor] = []
    for block in model.blocks:
        block.mlp.inner.register_forward_pre_hook(lambda _, inputs: scores.append(inputs[0].detach()))
    loss = BalancedLoss(plain, model, COEFFICIENT)(model, batch)
    targets = [T] * B if batch.mask is None else batch.mask.sum(dim=1).tolist()
    for each in scores:
        total += sum(n * balance for n, balance in zip(targets, by_loops(each.numpy(), K), strict=True))
    assert len(scores) == 3
    assert torch.equal(loss.sum, expected.sum)
    assert float(loss.weight) == float(expected.weight)
    assert sums(loss)[1:] == pytest.approx((COEFFICIENT * total, total / 3), rel=1e-5)
    assert loss.objective.item() == pytest.approx(sums(loss)[0] + sums(loss)[1], rel=1e-6)


def gradients(model: GPTOss) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cuts", [[0, 6], [0, 1, 6], [0, 2, 4, 6], [0, 1, 2, 3, 4, 5, 6]])
def test_any_split_into_passes_has_the_same_sums_and_gradients(masked: bool, cuts: list[int]) -> None:
    batch, found = some_batch(masked), []
    for split in ([0, 6], cuts):
        model = build()
        loss = BalancedLoss(next_token_loss, model, COEFFICIENT)
        parts = [loss(model, rows(batch, *part)) for part in pairwise(split)]
        for part in parts:
            part.objective.backward()
        found.append((np.array([sums(part) for part in parts]).sum(axis=0), gradients(model)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, atol=1e-4, rtol=1e-4)


def test_only_what_leads_to_a_router_has_a_gradient_and_it_evens_the_choice() -> None:
    model, batch = build(), some_batch()
    loss = BalancedLoss(next_token_loss, model, 1.0)(model, batch)
    assert loss.penalty is not None
    loss.penalty.backward()
    last = model.blocks[-1].mlp
    assert last.experts.down.grad is None and model.head.weight.grad is None
    for block in model.blocks:
        assert block.mlp.router.weight.grad.any()
    optimizer = torch.optim.SGD([p for block in model.blocks for p in block.mlp.router.parameters()], lr=0.01)
    before = loss.penalty.item()
    for _ in range(30):
        optimizer.zero_grad()
        loss = BalancedLoss(next_token_loss, model, 1.0)(model, batch)
        assert loss.penalty is not None
        (loss.penalty / B / T).backward()
        optimizer.step()
    assert loss.penalty.item() < before - 0.05 * B * T


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_has_the_gradient_of_both_and_reports_them_apart(dtype: str, recompute: bool) -> None:
    """Also if blocks are run again, and with the loss scale of float16, which is far above 1."""
    batch = some_batch()
    expected = build()
    loss = BalancedLoss(next_token_loss, expected, COEFFICIENT)(expected, batch)
    (loss.objective / loss.weight).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in expected.parameters() if p.grad is not None])

    model = build()
    runtime = build_runtime("cpu", dtype, activation_checkpointing=recompute)
    parallel = runtime.wrap(model, BalancedLoss(next_token_loss, model, COEFFICIENT))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    update = train_step(
        parallel, optimizer, runtime.build_scaler(), [rows(batch, 0, 4), rows(batch, 4, 6)], runtime,
        grad_clip=0.0, seed=None, step=0, expected_weight=B * T,
    )  # fmt: skip
    tolerance = 1e-5 if dtype == "float32" else 0.05
    assert update.skipped is None
    assert update.loss == pytest.approx(loss.sum.item() / (B * T), rel=tolerance)
    assert update.figures == pytest.approx({"balance": sums(loss)[2] / (B * T)}, rel=tolerance)
    assert update.grad_norm == pytest.approx(norm.item(), rel=tolerance)


def test_blocks_that_run_again_are_not_kept() -> None:
    model = build()
    runtime = build_runtime("cpu", "float32", activation_checkpointing=True)
    loss = BalancedLoss(next_token_loss, model, COEFFICIENT)
    runtime.wrap(model, loss)(some_batch()).objective.backward()
    assert [watch.close() for watch in loss._watches] == [{}] * 3


def test_a_model_without_experts_is_refused() -> None:
    model = GPT2(GPT2Config(V, T, n_layer=1, n_head=2, n_embd=8))
    with pytest.raises(ValueError, match="nothing to balance"):
        BalancedLoss(next_token_loss, model, COEFFICIENT)


def test_a_pass_outside_the_loss_is_not_counted() -> None:
    model, batch = build(), some_batch()
    loss = BalancedLoss(next_token_loss, model, COEFFICIENT)
    expected = sums(loss(model, batch))
    model(batch.inputs[:1])
    assert sums(loss(model, batch)) == expected
    broken = replace(batch, targets=torch.full((B, T), V))  # an id that does not exist
    with pytest.raises(IndexError):
        loss(model, broken)
    assert sums(loss(model, batch)) == expected
