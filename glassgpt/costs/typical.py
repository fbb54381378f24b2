"""A typical micro-batch for each kind of model, and its loss: with them memory is estimated and speed is measured.

Shapes: B rows, T = block_size positions, K hidden ones.
"""

from __future__ import annotations

import torch

from glassgpt.data.pair_loader import PairRows
from glassgpt.models import AnyModel, EncoderDecoderModel, EncoderModel
from glassgpt.training.losses import (
    Batch,
    LossFunction,
    MaskedBatch,
    masked_token_loss,
    next_token_loss,
    pair_loss,
)

HIDDEN = 0.15  # of the tokens of an encoder, as in `data.mask_fraction`

AnyBatch = Batch | MaskedBatch | PairRows


def loss_function(model: AnyModel) -> LossFunction:
    """The loss with which a model of this kind is trained."""
    if isinstance(model, EncoderDecoderModel):
        return pair_loss
    return masked_token_loss if isinstance(model, EncoderModel) else next_token_loss


def targets_per_row(model: AnyModel) -> int:
    """How many tokens of a full row have logits: K for an encoder, else T."""
    T = model.config.block_size
    return max(1, round(HIDDEN * T)) if isinstance(model, EncoderModel) else T


def random_batch(model: AnyModel, rows: int, device: torch.device) -> AnyBatch:
    """A micro-batch of full rows with uniformly drawn ids: neither memory nor speed depends on the ids."""
    sizes = model.config
    T, K = sizes.block_size, targets_per_row(model)
    inputs = torch.randint(sizes.vocab_size, (rows, T), device=device)
    targets = torch.randint(sizes.vocab_size, (rows, K), device=device)
    if isinstance(model, EncoderDecoderModel):
        everywhere = torch.ones_like(inputs, dtype=torch.bool)
        return PairRows(inputs, everywhere, inputs, targets, everywhere)
    if isinstance(model, EncoderModel):
        return MaskedBatch(inputs, torch.arange(K, device=device).expand(rows, K), targets)
    return Batch(inputs, targets)
