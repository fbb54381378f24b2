"""Batch norm against layer norm, in the same model: who sees whom, and what a small batch does.

The model is section 9 with two layers. For batch norm every LayerNorm is replaced: mean and variance are then taken per
channel over all positions of all rows in the batch (and are running averages of these when the model is evaluated).
"""

from __future__ import annotations

import torch
from lab import adamw, open_text, row, train, validation_loss
from torch import Tensor, nn

from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s09_layernorm import LayerNormModel


class ChannelBatchNorm(nn.Module):
    """x (B, T, C), each channel normalised over the batch and the positions."""

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def build(norm: str, vocab_size: int) -> nn.Module:
    """Section 9 with one or the other norm."""
    torch.manual_seed(0)
    model = LayerNormModel(LadderConfig(vocab_size=vocab_size, block_size=32, n_layer=2, n_embd=64))
    if norm == "batch norm":
        for block in model.blocks:
            block.norm1, block.norm2 = ChannelBatchNorm(64), ChannelBatchNorm(64)
        model.norm = ChannelBatchNorm(64)
    return model


def leaks(model: nn.Module, vocab_size: int) -> tuple[bool, bool]:
    """Whether, in training, position 10 of row 0 depends on a later position, and on another row."""
    tokens = torch.randint(vocab_size, (4, 32), generator=torch.Generator().manual_seed(0))
    later, other_row = tokens.clone(), tokens.clone()
    later[0, 20:] = (later[0, 20:] + 1) % vocab_size
    other_row[1] = (other_row[1] + 1) % vocab_size
    model.train()
    before = model.features(tokens)[0, 10]
    changed = [not torch.allclose(model.features(x)[0, 10], before, atol=1e-6) for x in (later, other_row)]
    return changed[0], changed[1]


def main() -> None:
    """Prints the table."""
    dataset = open_text(__doc__ or "")
    vocab_size = dataset.tokenizer.vocab_size
    row("", "sees future", "sees rows", "16 rows", "4 rows", "1 row")
    for norm in ("layer norm", "batch norm"):
        future, rows = leaks(build(norm, vocab_size), vocab_size)
        losses = []
        for batch_rows in (16, 4, 1):
            model = build(norm, vocab_size)
            train(model, dataset.train, adamw(model, 3e-3), steps=400, batch_rows=batch_rows)
            losses.append(validation_loss(model, dataset))
        row(norm, "yes" if future else "no", "yes" if rows else "no", *losses)


if __name__ == "__main__":
    main()
