"""When dropout pays: on little text, read many times. Section 10 with it and without, on 1% of the text and on all."""

from __future__ import annotations

import statistics

import torch
from lab import adamw, open_text, row, text_parser, train, validation_loss

from glassgpt.data.dataset import Dataset
from glassgpt.data.shards import TokenArray
from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s10_decoder import DecoderModel

STEPS, LOOK_EVERY = 800, 160


class Beginning(TokenArray):
    """The first `length` ids of an array."""

    def __init__(self, whole: TokenArray, length: int) -> None:
        super().__init__(whole.paths)
        self.length = length

    def __len__(self) -> int:
        return self.length


def learn(dataset: Dataset, share: float, dropout: float) -> list[float]:
    """Validation losses on the way, and the mean training loss of the last 100 steps."""
    tokens = Beginning(dataset.train, round(share * len(dataset.train)))
    torch.manual_seed(0)
    sizes = LadderConfig(dataset.tokenizer.vocab_size, block_size=32, n_layer=2, n_embd=64, dropout=dropout)
    model = DecoderModel(sizes)
    looks: list[float] = []
    losses: list[float] = []

    def after_step(step: int, loss: float) -> None:
        losses.append(loss)
        if step % LOOK_EVERY == 0:
            looks.append(validation_loss(model, dataset, max_tokens=10_000))

    train(model, tokens, adamw(model, 5e-3), steps=STEPS, after_step=after_step)
    return [*looks, statistics.fmean(losses[-100:])]


def main() -> None:
    """Prints the table."""
    dataset = open_text(text_parser(__doc__).parse_args().data)
    row("validation loss after steps", *range(LOOK_EVERY, STEPS + 1, LOOK_EVERY), "train loss", width=11)
    for share in (0.01, 1.0):
        for dropout in (0.0, 0.2):
            row(f"{share:.0%} of the text, dropout {dropout}", *learn(dataset, share, dropout), width=11)


if __name__ == "__main__":
    main()
