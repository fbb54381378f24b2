"""How much each token of a text surprises the model, and what the model expected in its place.

Shapes: T tokens, V = vocab_size, k expected ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.inspection.ids import checked_ids
from glassgpt.models import EncoderModel, Model, evaluating


@dataclass(frozen=True)
class TokenLosses:
    """Entry t is about token t + 1 of the text: the first token has no prediction. Tensors are on the CPU.

    The expected ids are the most likely ones, the likeliest first. They are ids of the model, so a tokenizer that is
    smaller than the model may have no text for them.
    """

    losses: Tensor  # (T - 1,) float32, nats: -log of the probability of the token that came
    expected_ids: Tensor  # (T - 1, k) int64
    expected_probabilities: Tensor  # (T - 1, k) float32


@torch.no_grad()
def token_losses(model: Model, ids: Sequence[int] | Tensor, top: int = 5, *, stride: int | None = None) -> TokenLosses:
    """The loss of each token of a text of any length, and the `top` ids that were expected.

    A text longer than `block_size` is read in the windows of `glassgpt.evaluation.validation.evaluate`, so the mean of
    the losses is the loss that it measures. Without a `stride`, the windows hold `block_size` targets each, and the
    first targets of a window have a short context, which raises their losses. With a `stride`, windows of `block_size`
    tokens overlap, and each target has at least `block_size - stride` tokens before it, if the text has them.

    A text of one token has no predictions: the result is empty. Raises UserError for an encoder, an empty text, an id
    outside the model's vocabulary, `top` below 1, or a stride out of range.
    """
    check_reads_forward(model)
    block_size = model.config.block_size
    if len(ids) == 0:
        raise UserError("the text is empty: it must have at least one token")
    if stride is not None and not 1 <= stride < block_size:
        raise UserError(f"stride {stride} is out of range: it must be at least 1 and below block_size = {block_size}")
    tokens = checked_ids(model, ids)
    width, step = (block_size + 1, block_size) if stride is None else (block_size, stride)
    found = [losses_of(torch.empty(0, model.config.vocab_size), torch.empty(0, dtype=torch.long), top)]
    with evaluating(model):
        start, end = 0, 1  # of a window; the tokens before `end` are predicted, or are the first one
        while end < len(tokens):
            window = tokens[start : start + width]
            logits = model(window[None, :-1])[0]
            new = end - start  # the first token of the window that no earlier window has predicted
            found.append(losses_of(logits[new - 1 :], window[new:], top))
            start, end = start + step, start + len(window)
    return TokenLosses(
        torch.cat([part.losses for part in found]),
        torch.cat([part.expected_ids for part in found]),
        torch.cat([part.expected_probabilities for part in found]),
    )


def check_reads_forward(model: Model) -> None:
    """Raises UserError for an encoder: it sees the whole text, so nothing in it can surprise the model."""
    if isinstance(model, EncoderModel):
        raise UserError(
            "an encoder sees the whole text and does not predict what comes next, so a text has no loss: look at its"
            " guesses for hidden tokens"
        )


def losses_of(logits: Tensor, targets: Tensor, top: int = 5) -> TokenLosses:
    """The loss of each of the targets (n,) given its logits (n, V), from a forward pass that is already done.

    For a trace of T tokens: `losses_of(logits[0, :-1], tokens[0, 1:])`. Raises UserError for `top` below 1.
    """
    if top < 1:
        raise UserError(f"top = {top} is out of range: it must be at least 1")
    logprobs = logits.float().log_softmax(dim=-1)
    best = logprobs.topk(min(top, logits.size(-1)), dim=-1)
    losses = -logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return TokenLosses(losses.cpu(), best.indices.cpu(), best.values.exp().cpu())
