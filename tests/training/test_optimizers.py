"""AdamW against the algorithm written by hand in float64, and against torch on two groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.models.gpt2 import GPT2, GPT2Config
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer

CONFIG = OptimizerConfig(lr=3e-3, beta1=0.8, beta2=0.97, eps=1e-6, weight_decay=0.3)


def build() -> GPT2:
    torch.manual_seed(0)
    return GPT2(GPT2Config(vocab_size=11, block_size=6, n_layer=1, n_head=2, n_embd=8))


def draw_gradients(model: nn.Module, n_steps: int = 20) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [
        {name: torch.randn(p.shape, generator=draw) for name, p in model.named_parameters()} for _ in range(n_steps)
    ]


def apply_gradients(model: nn.Module, optimizer: torch.optim.Optimizer, gradients: list[dict[str, Tensor]]) -> None:
    for of_step in gradients:
        for name, parameter in model.named_parameters():
            parameter.grad = of_step[name].clone()
        optimizer.step()


def adamw_by_hand(weights: np.ndarray, gradients: list[np.ndarray], weight_decay: float) -> np.ndarray:
    """Algorithm 2 of Loshchilov & Hutter 2019, line by line."""
    m, v = np.zeros_like(weights), np.zeros_like(weights)
    for t, g in enumerate(gradients, start=1):
        m = CONFIG.beta1 * m + (1 - CONFIG.beta1) * g
        v = CONFIG.beta2 * v + (1 - CONFIG.beta2) * g**2
        m_hat, v_hat = m / (1 - CONFIG.beta1**t), v / (1 - CONFIG.beta2**t)
        weights = weights - CONFIG.lr * (m_hat / (np.sqrt(v_hat) + CONFIG.eps) + weight_decay * weights)
    return weights


def test_it_is_adamw_with_decay_on_matrices_only() -> None:
    model, gradients = build(), draw_gradients(build())
    before = {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}
    apply_gradients(model, build_optimizer(model, CONFIG), gradients)
    for name, parameter in model.named_parameters():
        decayed = not name.endswith("bias") and "norm" not in name
        expected = adamw_by_hand(
            before[name], [g[name].double().numpy() for g in gradients], CONFIG.weight_decay if decayed else 0.0
        )
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_it_equals_torch_on_two_groups() -> None:
    model, other, gradients = build(), build(), draw_gradients(build())
    parameters = list(other.parameters())
    theirs = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() == 2], "weight_decay": CONFIG.weight_decay},
            {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=CONFIG.lr, betas=(CONFIG.beta1, CONFIG.beta2), eps=CONFIG.eps, foreach=False, fused=False,
    )  # fmt: skip
    apply_gradients(model, build_optimizer(model, CONFIG), gradients)
    apply_gradients(other, theirs, gradients)
    for ours, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_every_parameter_is_in_one_group_once() -> None:
    model = build()
    groups = build_optimizer(model, CONFIG).param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert [group["weight_decay"] for group in groups] == [CONFIG.weight_decay, 0.0]


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(3, 2)
    model.weight.requires_grad = False
    (group,) = build_optimizer(model, CONFIG).param_groups
    assert len(group["params"]) == 1
    assert group["params"][0] is model.bias
    assert group["weight_decay"] == 0.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", 0.0), ("lr", -1.0), ("lr", math.inf), ("lr", math.nan), ("eps", 0.0),
        ("beta1", 1.0), ("beta1", -0.1), ("beta2", 1.0), ("beta2", math.nan),
        ("weight_decay", -0.1), ("weight_decay", math.inf),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"optimizer\.{field} = {value} is out of range"):
        OptimizerConfig(**{field: value})  # type: ignore[arg-type]
