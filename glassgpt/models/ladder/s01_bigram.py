"""Section 1, the bigram table: the next token depends on the current one, and on nothing else.

Row i of a (V, V) table holds the logits of whatever follows token i. To predict is to look up a row, and training
fills the table with (the logarithms of) how often each pair of tokens occurs. There is no context yet: "q" is followed
by "u", and that is all the model can know.

Shapes: B batch, T positions, V = vocab_size.
"""

from __future__ import annotations

from torch import Tensor, nn

from glassgpt.models.context import Context
from glassgpt.models.ladder.config import LadderConfig
from glassgpt.models.model import Model


class BigramModel(Model):
    """`tokens (B, T)` to `logits (B, T, V)`, each position on its own."""

    def __init__(self, config: LadderConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)
        self.blocks = nn.ModuleList()  # every model has this list; here, nothing stands between the table and the head
        self.head = nn.Identity()  # a row of the table is already logits
        nn.init.zeros_(self.table.weight)  # every token equally likely: the first loss is ln V, that of a blind guess

    def features(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        """tokens (B, T) to their rows of the table (B, T, V). Nothing of the past is needed: a cache only counts."""
        if context is not None:
            context.advance(tokens.size(1))
        return self.table(tokens)

    def forward(self, tokens: Tensor, *, context: Context | None = None) -> Tensor:
        return self.head(self.features(tokens, context=context))
