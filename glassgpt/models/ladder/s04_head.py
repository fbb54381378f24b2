"""Section 4, one self-attention head: each position chooses from whom it hears.

Section 3 averaged the past with equal weights. Now every position sends out a query ("what do I look for?") and a key
("what do I offer?"). Their dot product is the score, the softmax of the scores is the weights, and what is summed with
these weights is a third view of each position, its value ("what do I say, if you listen to me?").

The scores are divided by √D. A dot product of D independent numbers of variance 1 has variance D; without the division
the softmax of a wide head starts so sharp that it picks one position and hardly passes a gradient to the others.

Shapes: B batch, T queries, S keys (S = T without a cache), C = n_embd, D = C size of the one head, V = vocab_size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from glassgpt.models.context import Context
from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.model import Model


def attention_scores(q: Tensor, k: Tensor) -> Tensor:
    """q (B, T, D) and k (B, S, D) to scaled scores (B, T, S): variance 1 where those of q and k are 1."""
    return q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))


class SelfAttentionHead(nn.Module):
    """x (B, T, C) to what each position hears from itself and those before it (B, T, D)."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.key = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.value = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x: Tensor, context: Context | None) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)  # each (B, T, D)
        mask = None
        if context is not None:
            keys, values, mask = context.append(0, k.unsqueeze(1), v.unsqueeze(1))  # a context has heads: (B, 1, S, D)
            k, v = keys.squeeze(1), values.squeeze(1)
        T, S = q.size(1), k.size(1)
        past = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(diagonal=S - T)  # the queries come last
        if mask is not None:
            past = mask.squeeze(1)  # (B, T, S)
        scores = attention_scores(q, k).masked_fill(~past, -torch.inf)
        pattern = scores.softmax(dim=-1)  # (B, T, S), each row sums to 1
        return pattern @ v


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

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        """tokens (B, T) to what the head heard at each of them (B, T, C)."""
        T = tokens.size(1)
        positions = torch.arange(T, device=tokens.device) if context is None else context.positions(T, tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        x = self.attn(x, context)
        if context is not None:
            context.advance(T)
        return x

    def forward(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        return self.head(self.features(tokens, context=context))
