"""Optimizers: AdamW, or Muon for the matrices, with weight decay on matrices and embeddings only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.training.adamw import AdamW
from glassgpt.training.muon import Muon


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2), or Muon. `lr` is the peak; a schedule scales it over time."""

    name: Literal["adamw", "muon"] = "adamw"  # the algorithm; muon: for the matrices, with AdamW for all the rest
    lr: float = 1e-3  # learning rate at its peak
    beta1: float = 0.9  # decay of the running mean of the gradient, per step
    beta2: float = 0.99  # decay of the running mean of the squared gradient, per step
    eps: float = 1e-8  # added to the root of the mean squared gradient, to avoid division by zero
    weight_decay: float = 0.1  # for matrices and embeddings; biases and gains have none
    momentum: float = 0.95  # of muon: decay of the running mean of the gradient, per step
    embedding_lr: float | None = None  # learning rate of embeddings at its peak; none: `optimizer.lr`

    def __post_init__(self) -> None:
        for field in ("lr", "eps"):
            value = getattr(self, field)
            if not 0.0 < value < float("inf"):
                raise UserError(f"optimizer.{field} = {value} is out of range: it must be finite and above 0")
        for field in ("beta1", "beta2", "momentum"):
            if not 0.0 <= getattr(self, field) < 1.0:
                raise UserError(f"optimizer.{field} = {getattr(self, field)} is out of range: at least 0 and below 1")
        if self.embedding_lr is not None and not 0.0 < self.embedding_lr < float("inf"):
            raise UserError(
                f"optimizer.embedding_lr = {self.embedding_lr} is out of range: it must be finite and above 0"
            )
        if not 0.0 <= self.weight_decay < float("inf"):
            raise UserError(
                f"optimizer.weight_decay = {self.weight_decay} is out of range: it must be finite and at least 0"
            )


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW with two groups: matrices and embeddings get weight decay; biases and gains do not.

    Muon has a third group before them: the matrices that are neither an embedding nor the head. Embeddings with a
    learning rate of their own are the last group.
    """
    matrices = find_matrices(model) if config.name == "muon" else {}
    parameters = [p for p in model.parameters() if p.requires_grad]
    apart = find_embeddings(model) if config.embedding_lr is not None else set()
    others = [p for p in parameters if p not in matrices and p not in apart]
    vectors = find_vectors(model)
    groups = [
        {"params": [p for p in others if p not in vectors], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p in vectors], "weight_decay": 0.0},
    ]
    settings: dict[str, Any] = {
        "lr": config.lr, "betas": (config.beta1, config.beta2), "eps": config.eps,
        # One kernel for all tensors of a device.
        "fused": all(p.device.type in ("cpu", "cuda", "mps") for p in parameters),
    }  # fmt: skip
    if config.embedding_lr is not None:
        rates = {"weight_decay": config.weight_decay, "lr_factor": config.embedding_lr / config.lr}
        groups.append({"params": [p for p in parameters if p in apart], **rates})
    if config.name == "muon":
        return Muon(matrices, groups, momentum=config.momentum, weight_decay=config.weight_decay, **settings)
    return AdamW([group for group in groups if group["params"]], **settings)


def find_embeddings(model: nn.Module) -> set[nn.Parameter]:
    """The weights of embeddings, of which a step changes the rows of the ids that it has seen."""
    return {p for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}


def find_vectors(model: nn.Module) -> set[nn.Parameter]:
    """The biases and gains, also those of several experts in one tensor."""
    return {p for name, p in model.named_parameters() if p.dim() < 2 or name.endswith("bias")}


def find_matrices(model: nn.Module) -> dict[nn.Parameter, int]:
    """The parameters that Muon trains, each with the number of matrices in it.

    There are three in a stack of Q, K and V, and E in the stack (E, in, out) of a mixture of experts. An embedding is a
    table and no matrix that multiplies a vector, and the head is its counterpart.
    """
    tables, vectors = find_embeddings(model), find_vectors(model)
    if isinstance(head := getattr(model, "head", None), nn.Module):
        tables |= set(head.parameters())

    def count(name: str, p: nn.Parameter) -> int:
        if p.dim() == 3:
            return p.size(0)
        return 3 if name.endswith("qkv.weight") and p.size(0) == 3 * p.size(1) else 1

    return {
        p: count(name, p)
        for name, p in model.named_parameters()
        if p.dim() in (2, 3) and p.requires_grad and p not in tables and p not in vectors
    }


def state_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What an optimizer keeps for a parameter after its first step, by key: on the meta device, without memory."""
    moment = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
    if isinstance(optimizer, Muon) and parameter in optimizer.matrices:
        return {"momentum": moment}
    return {
        "step": torch.empty((), dtype=torch.float32, device="meta"),
        "exp_avg": moment,
        "exp_avg_sq": moment,
    }
