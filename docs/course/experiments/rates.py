"""What layer norm buys: a learning rate that breaks plain residual blocks is still a good one behind norms."""

from __future__ import annotations

import torch
from lab import adamw, open_text, row, train, validation_loss

from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s08_residual import ResidualModel
from glassgpt.models.ladder.s09_layernorm import LayerNormModel

RATES = (3e-3, 1e-2, 2e-2, 4e-2)


def main() -> None:
    """Prints the table."""
    dataset = open_text(__doc__ or "")
    row("loss at learning rate", *(f"{lr:g}" for lr in RATES))
    for title, architecture in (("residual (section 8)", ResidualModel), ("layer norm (section 9)", LayerNormModel)):
        losses = []
        for lr in RATES:
            torch.manual_seed(0)
            model = architecture(
                LadderConfig(vocab_size=dataset.tokenizer.vocab_size, block_size=32, n_layer=3, n_embd=64)
            )
            train(model, dataset.train, adamw(model, lr), steps=400)
            losses.append(validation_loss(model, dataset))
        row(title, *losses)


if __name__ == "__main__":
    main()
