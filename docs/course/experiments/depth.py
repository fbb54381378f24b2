"""How deep a stack trains without residual connections, and how deep it trains with them: sections 7 and 8."""

from __future__ import annotations

import torch
from lab import adamw, open_text, row, text_parser, train, validation_loss

from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s07_blocks import BlocksModel
from glassgpt.models.ladder.s08_residual import ResidualModel

DEPTHS = (1, 2, 3, 4, 6)


def main() -> None:
    """Prints the table."""
    dataset = open_text(text_parser(__doc__).parse_args().data)
    row("loss with this many blocks", *DEPTHS)
    for title, architecture in (("replaced (section 7)", BlocksModel), ("added (section 8)", ResidualModel)):
        losses = []
        for n_layer in DEPTHS:
            torch.manual_seed(0)
            model = architecture(
                LadderConfig(vocab_size=dataset.tokenizer.vocab_size, block_size=32, n_layer=n_layer, n_embd=64)
            )
            train(model, dataset.train, adamw(model, 5e-3), steps=300)
            losses.append(validation_loss(model, dataset))
        row(title, *losses)


if __name__ == "__main__":
    main()
