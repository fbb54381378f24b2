"""What layer norm buys: learning rates that are too high for plain residual blocks do less harm behind norms."""

from __future__ import annotations

import torch
from lab import adamw, open_text, row, text_parser, train, validation_loss

from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s08_residual import ResidualModel
from glassgpt.models.ladder.s09_layernorm import LayerNormModel

RATES = (1e-3, 4e-3, 1.6e-2, 6.4e-2)
T, C = 8, 32  # as in the ladder


def main() -> None:
    """Prints the table."""
    parser = text_parser(__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    dataset = open_text(options.data)
    row("loss at learning rate", *(f"{lr:g}" for lr in RATES))
    for title, architecture in (("residual (section 8)", ResidualModel), ("layer norm (section 9)", LayerNormModel)):
        losses = []
        for lr in RATES:
            torch.manual_seed(0)
            config = LadderConfig(vocab_size=dataset.tokenizer.vocab_size, block_size=T, n_layer=3, n_embd=C)
            model = architecture(config)
            train(model, dataset.train, adamw(model, lr), steps=options.steps, block_size=T, batch_rows=32)
            losses.append(validation_loss(model, dataset))
        row(title, *losses)


if __name__ == "__main__":
    main()
