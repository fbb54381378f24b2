"""Scaled dot-product attention: the one primitive that every architecture shares.

Shapes: B batch, H heads, T queries, S keys (S = T without a cache), D size of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Hook = Callable[[str, Tensor], None]


class Attention(nn.Module):
    """softmax(q kᵀ / √D + mask) v, without parameters (Vaswani et al. 2017, equation 1).

    It runs as PyTorch's fused kernel, which never holds the (T, S) pattern. When a `hook` is set, it runs step by
    step instead, gives the same result within rounding, and hands every step to the hook by name:
    `q`, `k`, `v`, `scores`, `pattern`, `out`.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.hook: Hook | None = None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """q (B, H, T, D), k and v (B, H, S, D), S ≥ T: the queries are the last T positions. Returns (B, H, T, D).

        A `mask` (B, 1, T, S) says True where a query may look at a key; without one it looks at all up to itself.
        """
        dropout = self.dropout if self.training else 0.0
        T, S = q.size(-2), k.size(-2)
        if self.hook is not None:
            mask = causal_mask(T, S, q.device) if mask is None else mask
            return self._step_by_step(q, k, v, mask, dropout, self.hook)
        if mask is None and T == S:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        if mask is None and T > 1:
            # is_causal would align the mask with the first key; with a cache the queries are the last positions.
            mask = causal_mask(T, S, q.device)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)

    def _step_by_step(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float, hook: Hook) -> Tensor:
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (B, H, T, S)
        scores = scores.masked_fill(~mask, -torch.inf)
        pattern = scores.softmax(dim=-1)  # each row sums to 1 over the keys at or before its query
        out = F.dropout(pattern, dropout) @ v  # (B, H, T, D)
        for name, value in (("q", q), ("k", k), ("v", v), ("scores", scores), ("pattern", pattern), ("out", out)):
            hook(name, value)
        return out


def causal_mask(T: int, S: int, device: torch.device) -> Tensor:
    """(T, S) booleans, True where query t (position S - T + t) may look at key s."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(diagonal=S - T)
