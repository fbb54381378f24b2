"""Section 4, one self-attention head: each position chooses which earlier positions to attend to.

Section 3 averaged the past with equal weights. Now every position computes a query ("what do I look for?") and a key
("what do I offer?"). The dot product of a query and a key is the score. The softmax of the scores gives the weights.
The weighted sum is over a third vector of each position, its value ("what do I pass on?").

The scores are divided by √D. A dot product of D independent numbers of variance 1 has variance D; without the division
the softmax of a wide head is so sharp at first that it selects one position and the others get almost no gradient.

Shapes: B batch, T positions, C = n_embd, D = C head size, V = vocab_size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.model import Model


def attention_scores(q: Tensor, k: Tensor) -> Tensor:
    """q and k (B, T, D) to scaled scores (B, T, T), queries × keys: variance 1 where those of q and k are 1."""
    return q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))


class Attention(nn.Module):
    """q, k and v (B, T, D) to the weighted sums of the values up to each position (B, T, D). It has no parameters."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T = q.size(1)
        past = torch.ones(T, T, dtype=torch.bool, device=q.device).tril()  # row t is True up to column t
        scores = attention_scores(q, k).masked_fill(~past, -torch.inf)
        pattern = scores.softmax(dim=-1)  # (B, T, T), each row sums to 1
        return pattern @ v


class SelfAttentionHead(nn.Module):
    """x (B, T, C) to the weighted sum of the values up to each position (B, T, D)."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.key = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.value = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.inner = Attention()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)  # each (B, T, D)
        return self.inner(q, k, v)


class HeadModel(Model):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`, through one attention head."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList()
        self.attn = SelfAttentionHead(config)
        self.head = nn.Linear(config.n_embd, config.vocab_size)
        nn.init.normal_(self.head.weight, std=0.05)

    def features(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) to the output of the attention head (B, T, C)."""
        positions = torch.arange(tokens.size(1), device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        return self.attn(x)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))
