"""Scaled dot-product attention: the one primitive that every architecture shares.

Shapes: B batch, H query heads, G key and value heads (G = H unless heads share them), T queries, S keys (S = T without
a cache), D size of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Hook = Callable[[str, Tensor], None]


class Attention(nn.Module):
    """softmax(scale · q kᵀ + bias + mask) v, without parameters (Vaswani et al. 2017, equation 1).

    `scale` is 1/√D by default. Where there are fewer key and value heads than query heads, each serves H / G query
    heads next to each other (grouped queries, Ainslie et al. 2023).

    It runs as PyTorch's fused kernel, which never holds the (T, S) pattern. When a `hook` is set, it runs step by
    step instead, gives the same result within rounding, and hands every step to the hook by name:
    `q`, `k`, `v`, `scores`, `pattern`, `out`.
    """

    def __init__(self, dropout: float = 0.0, *, causal: bool = True, scale: float | None = None) -> None:
        super().__init__()
        self.dropout = dropout
        self.causal = causal
        self.scale = scale
        self.hook: Hook | None = None

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """q (B, H, T, D), k and v (B, G, S, D); G divides H. Returns (B, H, T, D).

        A `mask` of booleans, broadcast to (B, H, T, S), says True where a query may look at a key, and is then all that
        decides: causality must be in it. Without a mask a causal query looks at all keys up to itself, where the
        queries are the last T of S positions; one that is not causal looks at all. A float `bias`, broadcast to
        (B, H, T, S), is added to the scaled scores.
        """
        dropout = self.dropout if self.training else 0.0
        T, S = q.size(-2), k.size(-2)
        # Fused, is_causal needs no mask, but aligns it with the first key; a single query that comes last sees all.
        fused = self.hook is None and bias is None and (T == S or T == 1)
        if mask is None and self.causal and not fused:
            mask = causal_mask(T, S, q.device)
        if self.hook is not None:
            return self._step_by_step(q, k, v, mask, bias, dropout, self.hook)
        if bias is not None:
            mask = bias.to(q.dtype) if mask is None else bias.to(q.dtype).masked_fill(~mask, -torch.inf)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None and self.causal and T == S,
            scale=self.scale, enable_gqa=k.size(1) != q.size(1),
        )  # fmt: skip

    def _step_by_step(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, dropout: float, hook: Hook
    ) -> Tensor:
        groups = q.size(1) // k.size(1)  # query heads for each key head
        keys, values = (k, v) if groups == 1 else (x.repeat_interleave(groups, dim=1) for x in (k, v))
        scores = q @ keys.transpose(-2, -1)  # (B, H, T, S)
        scores = scores / math.sqrt(q.size(-1)) if self.scale is None else scores * self.scale
        if bias is not None:
            scores = scores + bias
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        pattern = scores.softmax(dim=-1)  # each row sums to 1 over the keys that its query may look at
        out = F.dropout(pattern, dropout) @ values  # (B, H, T, D)
        for name, value in (("q", q), ("k", k), ("v", v), ("scores", scores), ("pattern", pattern), ("out", out)):
            hook(name, value)
        return out


def causal_mask(T: int, S: int, device: torch.device) -> Tensor:
    """(T, S) booleans, True where query t (position S - T + t) may look at key s."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(diagonal=S - T)


def window_mask(T: int, S: int, window: int | None, device: torch.device) -> Tensor | None:
    """(1, 1, T, S) booleans, True where query t may look at key s: itself and `window` - 1 positions before it.

    None where the window leaves out no position, so that causality alone decides.
    """
    if window is None or window >= S:
        return None
    return causal_mask(T, S, device).triu(diagonal=S - T - window + 1).expand(1, 1, T, S)
