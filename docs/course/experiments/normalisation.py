"""Batch norm against layer norm, in the same model: who sees whom, and what a small batch does.

The model is that of section 9. For batch norm every LayerNorm is replaced: mean and variance are then taken per channel
over all positions of all rows in the batch (and are running averages of these when the model is evaluated).
"""

from __future__ import annotations

import statistics

import torch
import torch.nn.functional as F
from lab import adamw, open_text, row, text_parser, train, validation_loss
from torch import Tensor, nn

from glassgpt.data.dataset import Dataset
from glassgpt.data.loader import Loader
from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s09_layernorm import LayerNormModel

T, C, LAYERS = 8, 32, 3  # as in the ladder
BATCH_ROWS = (32, 4, 1)


class ChannelBatchNorm(nn.Module):
    """x (B, T, C), each channel normalised over the batch and the positions."""

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def build(norm: str, vocab_size: int, seed: int = 0) -> LayerNormModel:
    """Section 9 with one or the other norm."""
    torch.manual_seed(seed)
    model = LayerNormModel(LadderConfig(vocab_size=vocab_size, block_size=T, n_layer=LAYERS, n_embd=C))
    if norm == "batch norm":
        for block in model.blocks:
            block.norm1, block.norm2 = ChannelBatchNorm(C), ChannelBatchNorm(C)
        model.norm = ChannelBatchNorm(C)
    return model


def leaks(model: nn.Module, vocab_size: int) -> tuple[bool, bool]:
    """Whether, in training, position 2 of row 0 depends on a later position, and on another row."""
    tokens = torch.randint(vocab_size, (4, T), generator=torch.Generator().manual_seed(0))
    later, other_row = tokens.clone(), tokens.clone()
    later[0, 5:] = (later[0, 5:] + 1) % vocab_size
    other_row[1] = (other_row[1] + 1) % vocab_size
    model.train()
    before = model.features(tokens)[0, 2]
    changed = [not torch.allclose(model.features(x)[0, 2], before, atol=1e-6) for x in (later, other_row)]
    return changed[0], changed[1]


@torch.no_grad()
def loss_as_in_training(model: nn.Module, dataset: Dataset, batches: int = 500) -> float:
    """On the validation split, one row at a time, with mean and variance of that row. It changes running averages."""
    loader = Loader(dataset.val, T, 1)
    model.train()
    losses = []
    for step in range(batches):
        inputs, targets = loader.rows(step)
        losses.append(F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).item())
    return statistics.fmean(losses)


def half_range(losses: list[float]) -> float:
    """Half of the distance between the lowest and the highest."""
    return (max(losses) - min(losses)) / 2


def main() -> None:
    """Prints the table: for each size of a batch the mean of the seeds, and half of the range between them."""
    parser = text_parser(__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    dataset = open_text(options.data)
    vocab_size = dataset.tokenizer.vocab_size
    names = (name for rows in BATCH_ROWS for name in (f"{rows} row" + "s" * (rows > 1), "±"))
    row("", "sees future", "sees rows", *names, "in training", "±", width=12)
    for norm in ("layer norm", "batch norm"):
        seen = ["yes" if leak else "no" for leak in leaks(build(norm, vocab_size), vocab_size)]
        figures, own = [], []  # own: with the statistics of the one row
        for batch_rows in BATCH_ROWS:
            losses = []
            for seed in range(options.seeds):
                model = build(norm, vocab_size, seed)
                optimizer = adamw(model, 3e-3)
                train(
                    model, dataset.train, optimizer,
                    steps=options.steps, block_size=T, batch_rows=batch_rows, seed=seed,
                )  # fmt: skip
                losses.append(validation_loss(model, dataset))
                if batch_rows == 1:
                    own.append(loss_as_in_training(model, dataset))
            figures += [statistics.fmean(losses), half_range(losses)]
        figures += [statistics.fmean(own), half_range(own)]
        row(norm, *seen, *figures, width=12)


if __name__ == "__main__":
    main()
