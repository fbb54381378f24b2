"""Section 5, several heads: one position can attend to several things at once.

One head has one attention pattern, and a softmax that puts most weight on one position leaves little for the others.
So the C channels are split into H heads of D = C / H channels, each with its own queries, keys and pattern: one can
look for the last vowel while another looks for the start of the line. Their outputs are concatenated to C channels
again, and a projection mixes them. The cost is that of one wide head.

The heads are computed together, as one more dimension of the tensors, by the primitive that every later model shares:
`glassgpt.models.attention.Attention`, which is the computation of section 4 without its parameters.

Shapes: B batch, T positions, C = n_embd, H = n_head, D = C / H head size, V = vocab_size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassgpt.models.attention import Attention
from glassgpt.models.context import Context
from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.model import Model


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention, (B, T, C) to (B, T, C)."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.layer = 0
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.inner = Attention()
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, context: Context | None) -> Tensor:
        B, T, C = x.shape
        # (B, T, 3C) -> three of (B, H, T, D)
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.qkv(x).split(C, dim=-1))
        mask = None
        if context is not None:
            k, v, mask = context.append(self.layer, k, v)
        out = self.inner(q, k, v, mask)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)  # concatenate the heads
        return self.proj(out)


class Block(nn.Module):
    """The part of a model that can be repeated. So far it holds attention only."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.attn = CausalSelfAttention(config)

    def forward(self, x: Tensor, context: Context | None) -> Tensor:
        return self.attn(x, context)


class MultiHeadModel(Model):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`, through H attention heads."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList([Block(config)])
        self.head = nn.Linear(config.n_embd, config.vocab_size)
        nn.init.normal_(self.head.weight, std=0.05)

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        """tokens (B, T) to the output of the attention heads (B, T, C)."""
        T = tokens.size(1)
        positions = torch.arange(T, device=tokens.device) if context is None else context.positions(T, tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        for block in self.blocks:
            x = block(x, context)
        if context is not None:
            context.advance(T)
        return x

    def forward(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        return self.head(self.features(tokens, context=context))
