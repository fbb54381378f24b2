"""How long the vectors of the residual stream are after each block.

Shapes: L blocks, T positions, C = n_embd.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from glassgpt.errors import UserError


def residual_norms(activations: Mapping[str, Tensor]) -> Tensor:
    """The Euclidean norms of the residual stream at each position of one text, (L + 1, T) float32 on the CPU.

    Row 0 is the embedding and row n the stream after block n - 1. `activations` are captured ones of shape (1, T, C):
    `embed` and every `blocks.N.resid`.
    Raises UserError if the stream is not among them; a model without blocks and attention has none.
    """
    blocks = sum(name.endswith(".resid") for name in activations)
    names = ["embed", *(f"blocks.{n}.resid" for n in range(blocks))]
    if not blocks or any(name not in activations for name in names):
        raise UserError(
            "there is no residual stream to measure: capture 'embed' and every 'blocks.N.resid' of a model with blocks"
        )
    return torch.stack([activations[name][0].float().norm(dim=-1) for name in names]).cpu()
