"""Section 2, embeddings and a head: a token becomes a vector of C numbers, and a linear head maps it to logits.

The table of section 1 has V² entries, which is billions for the vocabulary of a real model. Two smaller tables with
V·C entries each replace it: the embedding gives each token a vector, and the head compares that vector with each
possible next token. Tokens that are used alike can now share what is learned. A second embedding, of the position, is
added. It is not useful while each position is processed separately, but it is needed for attention.

Shapes: B batch, T positions, C = n_embd, V = vocab_size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.model import Model


class EmbeddingModel(Model):
    """`tokens (B, T)` to `logits (B, T, V)`, T up to `block_size`; each position still separately."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList()
        self.head = nn.Linear(config.n_embd, config.vocab_size)
        nn.init.normal_(self.head.weight, std=0.05)  # small: nearly uniform predictions, an initial loss of about ln V

    def features(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) to token plus position embeddings (B, T, C)."""
        positions = torch.arange(tokens.size(1), device=tokens.device)
        return self.token_embedding(tokens) + self.position_embedding(positions)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))
