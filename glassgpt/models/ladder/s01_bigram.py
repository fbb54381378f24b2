"""Section 1, the bigram table: the next token depends only on the current one.

Row i of a (V, V) table holds the logits of the token that follows token i. Predicting means looking up a row.
Training fills the table with (the logarithms of) how often each pair of tokens occurs. There is no context yet: the
model can learn that "q" is followed by "u", and no more than such pairs.

Shapes: B batch, T positions, V = vocab_size.
"""

from __future__ import annotations

from torch import Tensor, nn

from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.model import Model


class BigramModel(Model):
    """`tokens (B, T)` to `logits (B, T, V)`, each position separately."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)
        self.blocks = nn.ModuleList()  # every model has this list; this one has no blocks
        self.head = nn.Identity()  # a row of the table is already logits
        nn.init.zeros_(self.table.weight)  # all tokens equally likely: the initial loss is ln V

    def features(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) to their rows of the table (B, T, V)."""
        return self.table(tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.features(tokens))
