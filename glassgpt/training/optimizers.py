"""Optimizers: AdamW with weight decay on matrices only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2). `lr` is the peak; a schedule scales it over time."""

    name: Literal["adamw"] = "adamw"  # the algorithm
    lr: float = 1e-3  # learning rate at its peak
    beta1: float = 0.9  # decay of the running mean of the gradient, per step
    beta2: float = 0.99  # decay of the running mean of the squared gradient, per step
    eps: float = 1e-8  # added to the root of the mean squared gradient, to avoid division by zero
    weight_decay: float = 0.1  # for matrices and embeddings; biases and gains have none

    def __post_init__(self) -> None:
        for field in ("lr", "eps"):
            value = getattr(self, field)
            if not 0.0 < value < float("inf"):
                raise UserError(f"optimizer.{field} = {value} is out of range: it must be finite and above 0")
        for field in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, field) < 1.0:
                raise UserError(f"optimizer.{field} = {getattr(self, field)} is out of range: at least 0 and below 1")
        if not 0.0 <= self.weight_decay < float("inf"):
            raise UserError(
                f"optimizer.weight_decay = {self.weight_decay} is out of range: it must be finite and at least 0"
            )


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW with two groups: matrices and embeddings get weight decay; biases and gains do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda", "mps") for p in parameters)  # one kernel for all tensors of a device
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=fused,
    )


def state_of(parameter: Tensor) -> dict[str, Tensor]:
    """What AdamW keeps for a parameter after its first step, by key: tensors on the meta device, without memory."""
    moment = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
    return {
        "step": torch.empty((), dtype=torch.float32, device="meta"),
        "exp_avg": moment,
        "exp_avg_sq": moment,
    }
