"""The logit lens: what the model would predict if it stopped after each block.

nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.inspection.taps import parts
from glassgpt.inspection.trace import Trace, check_position
from glassgpt.models import AnyModel, EncoderModel

ROWS = 256  # predictions at a time: their logits, one number for each id of the vocabulary, are all in memory


@dataclass(frozen=True)
class Lens:
    """Predictions of the next token at P positions after each of L blocks, with the embedding as layer 0.

    The last layer holds the model's own predictions. Those of an encoder are of the token at the position itself.
    """

    ids: Tensor  # (L + 1, P, k) the k most likely ids, the most likely one first
    probabilities: Tensor  # (L + 1, P, k)
    # (L + 1, P) of the token that the text has next, NaN after its last one; for an encoder, of the token that it has
    # there, which is the mask token where it is hidden.
    target_probabilities: Tensor


@torch.no_grad()
def logit_lens(
    trace: Trace, positions: Sequence[int] | None = None, top: int = 5, targets: Sequence[int] | None = None
) -> Lens:
    """Reads the residual stream after each block as if it were the last, by default at all positions.

    Layer 0 is the embedding, layer n the stream after block n - 1. Each goes through the model's own final norm (if
    it has one) and head. `top` is the number k of predictions, at most the size of the vocabulary. A model that
    captures no stream, such as sections 1 to 3 of the ladder, has one layer: its own predictions.
    Raises UserError for a position that the text lacks, for a `top` below 1, and for a model whose final norm has
    another name than `norm`. `targets` are the P ids whose probabilities are given in place of those of the text.
    """
    if top < 1:
        raise UserError(f"top = {top} is out of range: it must be at least 1")
    chosen = range(trace.n_tokens) if positions is None else [check_position(trace, at) for at in positions]
    at = torch.tensor(list(chosen), dtype=torch.long, device=trace.tokens.device)
    if targets is not None:
        wanted = torch.tensor(list(targets), device=at.device)
    else:
        wanted = (trace.tokens[0] if isinstance(trace.model, EncoderModel) else trace.tokens[0].roll(-1))[at]
    norm = final_norm(trace)
    features = torch.stack([*(norm(stream[0, at]) for stream in streams(trace)[:-1]), trace["final"][0, at]])
    n_layers = len(features)
    # The layers share each reading of the head's matrix, which takes longer than its products for few positions.
    predictions = read_out(trace.model, features.flatten(0, 1), wanted.repeat(n_layers), top)
    ids, probabilities, of_targets = (part.unflatten(0, (n_layers, len(at))).cpu() for part in predictions)
    if targets is None and not isinstance(trace.model, EncoderModel):
        of_targets[:, at.cpu() == trace.n_tokens - 1] = torch.nan
    return Lens(ids, probabilities, of_targets)


def streams(trace: Trace) -> list[Tensor]:
    """The residual stream (1, T, C) at layers 0 to L: the embedding, and after each block. Without blocks: `final`."""
    blocks = parts(trace.model)
    if not blocks:
        return [trace["final"]]
    return [trace["embed"], *(trace[f"blocks.{n}.resid"] for n in range(len(blocks)))]


@torch.no_grad()
def final_norm(trace: Trace) -> nn.Module:
    """The norm between the last block and the head; the identity for a model without one.

    Raises UserError if it does not take the last stream to the input of the head.
    """
    found = getattr(trace.model, "norm", None)
    norm = found if isinstance(found, nn.Module) else nn.Identity()
    stream, final = streams(trace)[-1], trace["final"]
    if parts(trace.model) and (norm(stream) - final).norm() > torch.finfo(final.dtype).eps ** 0.5 * final.norm():
        raise UserError(
            "what this model computes between its last block and its head is not a module `norm`: the lens and"
            " attribution need its final norm under that name, and a trace outside of an `edit` of 'final'"
        )
    return norm


def read_out(model: AnyModel, features: Tensor, targets: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (N, k), their probabilities (N, k) and those of the targets (N,), for features (N, C)."""
    found = []
    for part, target in zip(features.split(ROWS), targets.split(ROWS), strict=True):
        probabilities = model.head(part).float().softmax(dim=-1)
        values, ids = probabilities.topk(min(top, probabilities.size(-1)), dim=-1)
        found.append((ids, values, probabilities.gather(1, target[:, None])[:, 0]))
    ids, values, of_targets = (torch.cat(part) for part in zip(*found, strict=True))
    return ids, values, of_targets
