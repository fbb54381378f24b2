"""Scaled dot-product attention, the primitive that all architectures share.

Shapes: B batch, H query heads, G key/value heads (G < H with grouped-query attention), T queries, S keys (S = T
without a cache), D head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_mask, flex_attention

Mask = Tensor | BlockMask
Hook = Callable[[str, Tensor], Tensor | None]


class Attention(nn.Module):
    """softmax(scale · q kᵀ + bias + mask) v, without parameters (Vaswani et al. 2017, equation 1).

    `scale` is 1/√D by default. With fewer key/value heads than query heads, each key/value head serves H / G
    consecutive query heads (grouped-query attention, Ainslie et al. 2023).

    A head may have a sink (Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks"): a learned
    score without a key or a value, which takes part in the softmax. A query that finds nothing gives it its weight.

    By default it runs PyTorch's fused kernel, which never stores the (T, S) attention pattern. A `BlockMask` selects
    another one, FlexAttention (Dong et al. 2024), which skips the blocks of the pattern that the mask leaves empty. If
    a `hook` is set, each step is computed separately, and every intermediate tensor is passed to the hook by name: `q`,
    `k`, `v`, `scores`, `pattern`, `out`. A tensor that the hook returns takes its place; None leaves it as it is. The
    results of a hook that only looks are the same up to rounding. `scores` and `pattern` have no column for a sink, so
    a row of the pattern sums to less than 1: what is missing is the weight of the sink.
    """

    def __init__(self, dropout: float = 0.0, *, causal: bool = True, scale: float | None = None) -> None:
        super().__init__()
        self.dropout = dropout
        self.causal = causal
        self.scale = scale
        self.hook: Hook | None = None

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Mask | None = None,
        bias: Tensor | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """q (B, H, T, D), k and v (B, G, S, D); G divides H. Returns (B, H, T, D).

        A boolean `mask`, broadcast to (B, H, T, S), is True where a query may attend to a key. It replaces the default
        mask, so it must include causality. Without a mask, a causal query attends to all keys up to its own position,
        where the queries are the last T of the S positions; a non-causal query attends to all keys. A float `bias`,
        broadcast to (B, H, T, S), is added to the scaled scores. `sinks` (H) are the scores of the heads' sinks. A
        `BlockMask` means the same as its dense mask, which replaces it where FlexAttention lacks something: with
        dropout, with a bias, with sinks, and for a hook.
        """
        dropout = self.dropout if self.training else 0.0
        T, S = q.size(-2), k.size(-2)
        if isinstance(mask, BlockMask):
            if self.hook is None and bias is None and sinks is None and not dropout:
                grouped = k.size(1) != q.size(1)
                return flex_attention(q, k, v, block_mask=mask, scale=self.scale, enable_gqa=grouped)
            B, H, *_ = mask.shape
            mask = create_mask(mask.mask_mod, B, H, T, S, q.device)
        # The kernel's own causal mask aligns queries with the first keys, so it needs T == S. One query needs none.
        needs_no_mask = self.hook is None and bias is None and sinks is None and (T == S or T == 1)
        if mask is None and self.causal and not needs_no_mask:
            mask = causal_mask(T, S, q.device)
        if self.hook is not None:
            return self._step_by_step(q, k, v, mask, bias, sinks, dropout, self.hook)
        if bias is not None:
            mask = bias.to(q.dtype) if mask is None else bias.to(q.dtype).masked_fill(~mask, -torch.inf)
        if sinks is not None:
            k, v, mask = with_sinks(q, k, v, mask, sinks)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None and self.causal and T == S,
            scale=self.scale, enable_gqa=k.size(1) != q.size(1),
        )  # fmt: skip

    def _step_by_step(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        sinks: Tensor | None,
        dropout: float,
        hook: Hook,
    ) -> Tensor:
        def seen(name: str, value: Tensor) -> Tensor:
            replacement = hook(name, value)
            return value if replacement is None else replacement

        q, k, v = seen("q", q), seen("k", k), seen("v", v)
        groups = q.size(1) // k.size(1)  # query heads per key/value head
        keys, values = (k, v) if groups == 1 else (x.repeat_interleave(groups, dim=1) for x in (k, v))
        scores = q @ keys.transpose(-2, -1)  # (B, H, T, S)
        scores = scores / math.sqrt(q.size(-1)) if self.scale is None else scores * self.scale
        if bias is not None:
            scores = scores + bias
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        scores = seen("scores", scores)
        if sinks is not None:
            scores = torch.cat([scores, sinks.to(scores.dtype).view(-1, 1, 1).expand(*scores.shape[:-1], 1)], dim=-1)
        pattern = scores.softmax(dim=-1)  # rows sum to 1 over the unmasked keys, and the sink
        pattern = seen("pattern", pattern if sinks is None else pattern[..., :-1])
        return seen("out", F.dropout(pattern, dropout) @ values)  # (B, H, T, D)


def with_sinks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, sinks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and a float mask (…, H, T, S + 1) in which the last key is the sink of each head, `sinks` (H).

    That key and its value are zero, so its score is what the mask adds, and it adds nothing to the output.
    """
    (_, H, T, _), S = q.shape, k.size(-2)
    if mask is None:
        mask = q.new_zeros(1, 1, T, S)
    elif mask.dtype == torch.bool:
        mask = q.new_zeros(()).where(mask, -torch.inf)
    rows = mask.size(0) if mask.dim() == 4 else 1
    column = sinks.to(q.dtype).view(1, H, 1, 1).expand(rows, H, T, 1)
    k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
    return k, v, torch.cat([mask.expand(rows, H, T, S), column], dim=-1)


def causal_mask(T: int, S: int, device: torch.device) -> Tensor:
    """(T, S) booleans, True where query t (position S - T + t) may attend to key s."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(diagonal=S - T)


def window_mask(T: int, S: int, window: int | None, device: torch.device) -> Tensor | None:
    """(1, 1, T, S) booleans, True where query t may attend to key s: its own and the `window` - 1 positions before it.

    None if the window covers all positions, so that the causal mask is enough.
    """
    if window is None or window >= S:
        return None
    return causal_mask(T, S, device).triu(diagonal=S - T - window + 1).expand(1, 1, T, S)
