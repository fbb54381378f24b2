"""Masks for FlexAttention as a context: packed documents and banded layers without leaving the fast kernels.

Flash attention knows no masks but the causal one. A dense mask (B, 1, T, T) leads to a kernel that reads it in every
layer, and computes the parts of the pattern that it hides. FlexAttention (Dong et al. 2024, "Flex Attention: A
Programming Model for Generating Optimized Attention Kernels") compiles the condition itself into the kernel, and skips
blocks of 128 × 128 in which it never holds.

Shapes: B rows, T positions of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from glassgpt.models.context import count_documents

Condition = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (row, head, query, key) to whether it may attend
MIN_HEAD_SIZE = 16  # of FlexAttention's kernel on a GPU


class BlockMasks:
    """The masks of whole rows (B, T) for every layer of a model; implements `glassgpt.models.context.Context`.

    With an `eot_id`, documents are kept apart as by `Documents`. `window` is the width of the band in banded layers.
    """

    def __init__(self, tokens: Tensor, eot_id: int | None, window: int | None) -> None:
        B, T = tokens.shape
        self._positions = torch.arange(T, device=tokens.device)
        self._masks: dict[int | None, BlockMask | None] = {}  # by window
        if eot_id is None:
            self._masks[None] = None  # causality needs no mask
            self._masks[window] = None if window is None else _band(T, window, tokens.device)
        else:
            self._positions, number = count_documents(tokens == eot_id)
            for width in {None, window}:
                condition = attends(number, width)
                self._masks[width] = create_block_mask(condition, B, None, T, T, device=tokens.device)

    def positions(self, n_tokens: int, device: torch.device) -> Tensor:
        """(T,), or (B, T) with documents: the position of each token within its row or document."""
        return self._positions

    def preceding(self, tokens: Tensor, count: int) -> Tensor:
        """See `Context`: the ids before a token are those of its row."""
        return F.pad(tokens, (count, 0))

    def append(
        self, layer: int, k: Tensor, v: Tensor, *, window: int | None = None
    ) -> tuple[Tensor, Tensor, BlockMask | None]:
        """Returns k and v unchanged (there are no earlier positions), and the mask for layers with this window."""
        return k, v, self._masks[None if window is None or window >= k.size(-2) else window]

    def advance(self, n_tokens: int) -> None:
        """Does nothing: no state is carried to the next pass."""


def attends(number: Tensor | None, window: int | None) -> Condition:
    """Whether a query may attend to a key: an earlier one, of the same document `number` (B, T), within the window."""

    def condition(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        allowed = query >= key
        if number is not None:
            allowed = allowed & (number[row, query] == number[row, key])
        if window is not None:
            allowed = allowed & (query - key < window)
        return allowed

    return condition


@lru_cache(maxsize=8)
def _band(T: int, window: int, device: torch.device) -> BlockMask:
    """The mask of a band, which is the same for every batch."""
    return create_block_mask(attends(None, window), None, None, T, T, device=device)
