"""batches → loss. A loss function returns (sum, weight): the step divides by the weight of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from glassgpt.models.documents import Documents


@dataclass(frozen=True)
class Batch:
    """One micro-batch. inputs and targets are (B, T) token ids; mask (B, T) is 1 where a target is trained on."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor | None = None


LossFunction = Callable[[nn.Module, Batch], tuple[Tensor, Tensor | float]]


def next_token_loss(
    model: nn.Module, batch: Batch, *, n_ids: int | None = None, separator: int | None = None
) -> tuple[Tensor, Tensor | float]:
    """Cross-entropy of the next token: the sum over trained-on targets in nats, and their number.

    Only the first `n_ids` logits take part: those of a padded vocabulary belong to no token. With a `separator`, each
    document of a row, from one separator to the next, is predicted as if it stood alone.
    """
    context = {} if separator is None else {"cache": Documents(batch.inputs, separator)}
    logits = model(batch.inputs, **context)[..., :n_ids]  # (B, T, V)
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(), batch.targets.flatten(), reduction="sum" if batch.mask is None else "none"
    )
    if batch.mask is None:
        return losses, float(batch.targets.numel())
    mask = batch.mask.flatten().to(losses.dtype)
    return losses.masked_fill(mask == 0, 0.0).mul(mask).sum(), mask.sum()
