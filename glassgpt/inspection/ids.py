"""Token ids as an instrument takes them: checked against the model, so that no lookup fails inside torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from glassgpt.errors import UserError, counted, shown
from glassgpt.models import AnyModel


def checked_ids(model: AnyModel, ids: Sequence[int] | Tensor) -> Tensor:
    """The ids as a tensor (T,) of integers on the model's device; T may be 0.

    Raises UserError for an id outside the model's vocabulary.
    """
    V = model.config.vocab_size
    values: list[int] = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    for value in values:
        if not 0 <= value < V:
            raise UserError(f"token id {shown(value)} is outside the model's vocabulary of {counted(V, 'id')}")
    return torch.tensor(values, dtype=torch.long, device=device_of(model))


def one_pass(model: AnyModel, ids: Sequence[int] | Tensor, least: int = 1) -> Tensor:
    """The ids as tokens (1, T) for one forward pass.

    Raises UserError for fewer than `least`, for more than `block_size`, and for an id outside the model's vocabulary.
    """
    if len(ids) == 0:
        raise UserError("the text is empty: it must have at least one token")
    if len(ids) < least:
        raise UserError(f"the text has {counted(len(ids), 'token')}: give at least {least}")
    if len(ids) > (block_size := model.config.block_size):
        raise UserError(
            f"the text has {len(ids):,} tokens, more than the model's block_size of {block_size:,}: use a shorter text"
        )
    return checked_ids(model, ids).unsqueeze(0)


def windows(tokens: Tensor, length: int, rows: int) -> Iterator[Tensor]:
    """Cuts tokens (T,) into consecutive windows of `length`, and yields them in batches (B, n) of at most `rows`.

    A shorter window at the end is a batch of its own.
    """
    full = len(tokens) - len(tokens) % length
    for start in range(0, full, rows * length):
        yield tokens[start : min(start + rows * length, full)].view(-1, length)
    if full < len(tokens):
        yield tokens[full:].unsqueeze(0)


def device_of(model: AnyModel) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device
