"""Loss functions. Each returns a sum and a weight; the step divides by the weight of the global batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glassgpt.data.masking import HiddenRows
from glassgpt.data.pair_loader import PairRows
from glassgpt.models import EncoderModel, Model
from glassgpt.models.context import Context


class MicroBatch(Protocol):
    """What the training loop needs from a micro-batch. All other contents concern only a stage and its loss."""

    @property
    def n_tokens(self) -> int:
        """The number of tokens that it adds to `tokens_seen`."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch. inputs and targets are (B, T) token ids; mask (B, T) is 1 where a target is trained on."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor | None = None

    @property
    def n_tokens(self) -> int:
        """The number of targets, masked ones included."""
        return self.targets.numel()


@dataclass(frozen=True)
class MaskedBatch:
    """One micro-batch with hidden tokens: `targets` (B, K) were at the `places` (B, K) of the inputs (B, T)."""

    inputs: Tensor
    places: Tensor
    targets: Tensor

    @classmethod
    def of(cls, hidden: HiddenRows, device: torch.device) -> MaskedBatch:
        """The rows as tensors on a device."""
        return cls(*(torch.from_numpy(part).to(device) for part in (hidden.inputs, hidden.places, hidden.targets)))

    @property
    def n_tokens(self) -> int:
        """The number of tokens that the model reads, hidden ones included."""
        return self.inputs.numel()


@dataclass(frozen=True)
class Loss:
    """The result of a loss function on a micro-batch.

    `sum` is a scalar with a gradient. It is divided by `weight` after both are summed over all micro-batches and ranks;
    for a mean over tokens, the weight is the number of tokens. `figures` are additional metrics by name, each a
    detached (sum, weight) that is summed and divided in the same way. Every micro-batch of a stage has the same names.
    A `penalty` is a scalar with a gradient, like `sum`: training lowers it too, but it is no part of the loss that is
    reported. Raises ValueError for a figure called "loss".
    """

    sum: Tensor
    weight: Tensor | float
    figures: Mapping[str, tuple[Tensor | float, Tensor | float]] = field(default_factory=dict)
    penalty: Tensor | None = None

    def __post_init__(self) -> None:
        if "loss" in self.figures:
            raise ValueError("a figure cannot be called 'loss': metrics.jsonl has the loss itself under that name")

    @property
    def objective(self) -> Tensor:
        """What training lowers: the sum, with the penalty if there is one."""
        return self.sum if self.penalty is None else self.sum + self.penalty


SumLosses = Callable[[Tensor, Tensor, Tensor | None], Tensor]
BuildContext = Callable[[Tensor], Context]  # from the inputs (B, T) of a pass
LossFunction = Callable[[Any, Any], Loss]  # (model, micro-batch)


def next_token_loss(
    model: nn.Module,
    batch: Batch,
    *,
    build_context: BuildContext | None = None,
    chunk: int | None = None,
    sum_losses: SumLosses | None = None,
) -> Loss:
    """Cross-entropy of next-token prediction: the sum over trained-on targets in nats, and their number.

    `build_context` returns the context of the pass, for example one that keeps documents apart. With a `chunk`,
    memory holds the logits of only that many tokens at a time instead of all (B·T, V). The backward pass recomputes
    them, so the head costs four matrix products instead of three. `sum_losses` is `sum_token_losses` or a compiled
    version of it. Raises TypeError for a chunk if `model` is not a `Model`: a wrapper has no `features` and `head`.
    """
    sum_losses = sum_losses or sum_token_losses
    context = {} if build_context is None else {"context": build_context(batch.inputs)}
    targets, mask = batch.targets.flatten(), None if batch.mask is None else batch.mask.flatten()
    weight = float(targets.numel()) if mask is None else mask.sum(dtype=torch.float32)
    if not chunk:
        return Loss(sum_losses(model(batch.inputs, **context).flatten(0, 1), targets, mask), weight)
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
    return Loss(total, weight)


def sum_token_losses(logits: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
    """The sum of the losses for logits (N, V) and targets (N,), weighted by mask (N,)."""
    logits = logits.float()
    if mask is None:
        return F.cross_entropy(logits, targets, reduction="sum")
    losses = F.cross_entropy(logits, targets, reduction="none")
    return losses.masked_fill(mask == 0, 0.0).mul(mask.to(losses.dtype)).sum()


def masked_token_loss(model: EncoderModel, batch: MaskedBatch, *, sum_losses: SumLosses | None = None) -> Loss:
    """Cross-entropy of the hidden tokens: the sum in nats, and their number (Devlin et al. 2018, section 3.1).

    The head is computed at the hidden places only. The figure "accuracy" is the share of them that are right.
    """
    sum_losses = sum_losses or sum_token_losses
    logits, targets = hidden_logits(model, batch).flatten(0, 1), batch.targets.flatten()
    right = (logits.detach().argmax(-1) == targets).sum()
    weight = float(targets.numel())
    return Loss(sum_losses(logits, targets, None), weight, {"accuracy": (right, weight)})


def hidden_logits(model: EncoderModel, batch: MaskedBatch) -> Tensor:
    """The logits at the hidden places: (B, K, V)."""
    features = model.features(batch.inputs)  # (B, T, C)
    places = batch.places[..., None].expand(-1, -1, features.size(-1))
    logits: Tensor = model.head(features.gather(1, places))
    return logits


def pair_loss(model: nn.Module, batch: PairRows, *, sum_losses: SumLosses | None = None) -> Loss:
    """Cross-entropy of the targets, given the sources: the sum in nats over targets that are no padding, their number.

    Every target is predicted from the true ones before it, not from those that the model would write (teacher forcing,
    Williams & Zipser 1989).
    """
    logits = model(batch.source, batch.inputs, visible=batch.visible)
    mask = batch.mask.flatten()
    total = (sum_losses or sum_token_losses)(logits.flatten(0, 1), batch.targets.flatten(), mask)
    return Loss(total, mask.sum(dtype=torch.float32))
