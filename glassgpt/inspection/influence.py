"""Which positions the prediction at one position depends on, by the gradient of its loss.

Shapes: L blocks with attention, H heads (fewer for k and v with grouped-query attention), T positions, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from glassgpt.errors import UserError
from glassgpt.inspection.capture import capture_names, gradients
from glassgpt.inspection.ids import checked_ids, one_pass
from glassgpt.models import Model


@dataclass(frozen=True)
class Influence:
    """The norm of the gradient of one position's loss with respect to each query, key and value vector.

    It says how strongly a small change of that vector would change the loss. It is exactly 0 at later positions, which
    the causal mask hides. In the last block, only the query of the position itself has an influence; the keys and
    values of earlier positions have one because attention reads them. Tensors are float32 on the CPU.
    """

    loss: float  # nats: -log of the probability of the target
    q: Tensor  # (L, H, T)
    k: Tensor  # (L, H, T)
    v: Tensor  # (L, H, T)


def influence(model: Model, ids: Sequence[int] | Tensor, position: int, *, target: int | None = None) -> Influence:
    """The influence of every position on the loss of the prediction at `position`, counted from 0.

    The loss is that of the next token of the text, or of `target`, an id that need not follow. One forward and one
    backward pass.
    Raises UserError for a model without attention, an empty text or one longer than `block_size`, an id outside the
    vocabulary, a position outside the text, and for the last position without a `target`.
    """
    tokens = one_pass(model, ids)
    T = tokens.size(1)
    if not 0 <= position < T:
        raise UserError(f"position {position} is outside the text, which has positions 0 to {T - 1}")
    if target is None and position == T - 1:
        raise UserError(
            f"position {position} is the last one, so no token follows it: name the target whose loss counts"
        )
    expected = tokens[0, position + 1 : position + 2] if target is None else checked_ids(model, [target])
    names = [name for name in capture_names(model) if name.endswith((".attn.q", ".attn.k", ".attn.v"))]
    if not names:
        raise UserError("this model has no attention: it has no queries, keys and values whose influence to measure")
    loss, slopes = gradients(
        model, tokens, lambda logits: F.cross_entropy(logits[0, position : position + 1].float(), expected), names
    )

    def norms(which: Literal["q", "k", "v"]) -> Tensor:
        return torch.stack([slopes[name][0].float().norm(dim=-1) for name in names if name.endswith(f".{which}")]).cpu()

    return Influence(float(loss), norms("q"), norms("k"), norms("v"))
