"""Section 3, averaging the past: the simplest way for a position to use the ones before it.

Position t becomes the mean of positions 0 … t. Later positions are excluded, because they are what it has to predict.
The mean is written in three ways, because the last one leads to attention:

- a loop is the most direct form;
- a product with a triangular matrix, whose row t holds 1/(t+1) up to column t, does it in one operation;
- the softmax of scores that are all 0, with the future masked to -∞, gives that same matrix. A score says how relevant
  one position is to another. In section 4 the scores depend on the tokens.

A plain mean loses the order of the past and gives the current token little weight, so this section predicts *worse*
than the one before. It adds the communication between positions; learned weights come next.

Shapes: B batch, T positions, C = n_embd, V = vocab_size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.model import Model


def average_by_loop(x: Tensor) -> Tensor:
    """x (B, T, C) to the means of its first 1, 2, …, T positions (B, T, C)."""
    return torch.stack([x[:, : t + 1].mean(dim=1) for t in range(x.size(1))], dim=1)


def average_by_matrix(x: Tensor) -> Tensor:
    """The same by one product: (T, T) @ (B, T, C) to (B, T, C)."""
    T = x.size(1)
    weights = torch.ones(T, T, dtype=x.dtype, device=x.device).tril()
    weights = weights / weights.sum(dim=1, keepdim=True)  # row t: 1/(t+1), t+1 times, then zeros
    return weights @ x


def average_by_softmax(x: Tensor) -> Tensor:
    """The same again, with the weights made by a softmax over masked scores: the form of attention."""
    T = x.size(1)
    past = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
    scores = torch.zeros(T, T, dtype=x.dtype, device=x.device)  # every position is equally relevant to every other
    weights = scores.masked_fill(~past, -torch.inf).softmax(dim=-1)  # exp(-∞) = 0: nothing comes from the future
    return weights @ x


class AveragingModel(Model):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`, from the mean of all tokens so far."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList()
        self.head = nn.Linear(config.n_embd, config.vocab_size)
        nn.init.normal_(self.head.weight, std=0.05)

    def features(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) to the mean of the embeddings up to each of them (B, T, C)."""
        positions = torch.arange(tokens.size(1), device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        return average_by_softmax(x)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))
