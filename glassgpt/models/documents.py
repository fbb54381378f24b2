"""Rows that hold several documents, each seen as if it stood alone.

Shapes: B rows, T positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glassgpt.models.attention import causal_mask


class Documents:
    """Given to a model in the place of its cache: no position attends across the start of a document.

    A document starts at its separator, the end-of-text token, and at the start of a row. Positions count from there, so
    every document gets the logits that it would get in a row of its own. The prediction of a separator is the end of
    the document before it, so no target crosses a boundary either.
    """

    def __init__(self, tokens: Tensor, separator: int) -> None:
        starts = tokens == separator  # (B, T)
        index = torch.arange(tokens.size(1), device=tokens.device)
        self._positions = index - (index * starts).cummax(dim=1).values
        number = starts.cumsum(dim=1)
        same = number.unsqueeze(2) == number.unsqueeze(1)  # (B, T, T)
        self.mask = (same & causal_mask(len(index), len(index), tokens.device)).unsqueeze(1)  # (B, 1, T, T)

    def positions(self, n_tokens: int, device: torch.device) -> Tensor:
        """(B, T): how far each token is into its document."""
        return self._positions

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """k and v as they are: nothing came before this pass."""
        return k, v

    def advance(self, n_tokens: int) -> None:
        """Nothing is kept for a next pass."""
