"""batches → loss. A loss function returns (sum, weight): the step divides by the weight of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glassgpt.models import Model
from glassgpt.models.context import Documents


@dataclass(frozen=True)
class Batch:
    """One micro-batch. inputs and targets are (B, T) token ids; mask (B, T) is 1 where a target is trained on."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor | None = None


SumLosses = Callable[[Tensor, Tensor, Tensor | None], Tensor]
LossFunction = Callable[[nn.Module, Batch], tuple[Tensor, Tensor | float]]


def next_token_loss(
    model: nn.Module,
    batch: Batch,
    *,
    eot_id: int | None = None,
    chunk: int = 0,
    sum_losses: SumLosses | None = None,
) -> tuple[Tensor, Tensor | float]:
    """Cross-entropy of the next token: the sum over trained-on targets in nats, and their number.

    With an `eot_id`, each document of a row, from one eot_id to the next, is predicted as if it stood alone. With a
    `chunk`, the logits of only so many tokens are held at a time: the backward pass computes them again, four products
    with the head instead of three for not holding (B·T, V) numbers. `sum_losses` is `sum_token_losses`, or that
    compiled. Raises TypeError for a chunk of a module that is not a `Model`: a wrapper has no `features` and `head`.
    """
    sum_losses = sum_losses or sum_token_losses
    context = {} if eot_id is None else {"context": Documents(batch.inputs, eot_id)}
    targets, mask = batch.targets.flatten(), None if batch.mask is None else batch.mask.flatten()
    weight = float(targets.numel()) if mask is None else mask.sum(dtype=torch.float32)
    if not chunk:
        return sum_losses(model(batch.inputs, **context).flatten(0, 1), targets, mask), weight
    if not isinstance(model, Model):
        raise TypeError(f"a chunked loss calls `features` and `head`, which {type(model).__name__} does not have")
    features = model.features(batch.inputs, **context).flatten(0, 1)  # (B·T, C)

    def sum_chunk(features: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        return sum_losses(model.head(features), targets, mask)

    total = features.new_zeros((), dtype=torch.float32)
    for start in range(0, len(targets), chunk):
        part = slice(start, start + chunk)
        pieces = (features[part], targets[part], None if mask is None else mask[part])
        total = total + checkpoint(sum_chunk, *pieces, use_reentrant=False, preserve_rng_state=False)
    return total, weight


def sum_token_losses(logits: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
    """logits (N, V) and targets (N,) to the sum of the losses where mask (N,) is not 0."""
    logits = logits.float()
    if mask is None:
        return F.cross_entropy(logits, targets, reduction="sum")
    losses = F.cross_entropy(logits, targets, reduction="none")
    return losses.masked_fill(mask == 0, 0.0).mul(mask.to(losses.dtype)).sum()
