"""Section 5, several heads: one position can attend to several things at once.

One head has one attention pattern, and a softmax that puts most weight on one position leaves little for the others.
So the C channels are split into H heads of D = C / H channels, each with its own queries, keys, values and pattern: one
can look for the last vowel while another looks for the start of the line. Their outputs are concatenated to C channels
again, and a projection mixes them. The cost is that of one wide head.

The heads are written in two ways, which give the same result:

- a list of heads, each the head of section 4 with D channels instead of C;
- all heads in one tensor with one more dimension. One product makes the queries, keys and values of all heads, and the
  primitive that every later model shares, `glassgpt.models.attention.Attention`, computes what section 4 spelled out.

The second form is faster, because a few large products take less time than many small ones. The model uses it.

Shapes: B batch, T positions, C = n_embd, H = n_head, D = C / H head size, V = vocab_size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from glassgpt.models.attention import Attention
from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.model import Model


class Head(nn.Module):
    """The head of section 4 with D channels, (B, T, C) to (B, T, D)."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        head_size = config.n_embd // config.n_head
        self.query = nn.Linear(config.n_embd, head_size, bias=False)
        self.key = nn.Linear(config.n_embd, head_size, bias=False)
        self.value = nn.Linear(config.n_embd, head_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)  # each (B, T, D)
        past = torch.ones(x.size(1), x.size(1), dtype=torch.bool, device=x.device).tril()
        scores = (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).masked_fill(~past, -torch.inf)  # (B, T, T)
        return scores.softmax(dim=-1) @ v


class ListOfHeads(nn.Module):
    """Multi-head causal self-attention as it is explained, (B, T, C) to (B, T, C)."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Head(config) for _ in range(config.n_head))
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.cat([head(x) for head in self.heads], dim=-1)  # H of (B, T, D) -> (B, T, C)
        return self.proj(out)


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention as it is computed, (B, T, C) to (B, T, C)."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.inner = Attention()
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        # (B, T, 3C) -> three of (B, H, T, D)
        q, k, v = (part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.qkv(x).split(C, dim=-1))
        out = self.inner(q, k, v)  # (B, H, T, D)
        out = out.transpose(1, 2).reshape(B, T, C)  # concatenate the heads
        return self.proj(out)


class Block(nn.Module):
    """The part of a model that can be repeated. So far it holds attention only."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.attn = CausalSelfAttention(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x)


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

    def features(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) to the output of the attention heads (B, T, C)."""
        positions = torch.arange(tokens.size(1), device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))
