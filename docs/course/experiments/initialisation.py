"""What the size of the first weights does: the loss of a small GPT-2 before the first step, and how it learns then."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import torch
from lab import adamw, open_text, row, text_parser, train, validation_loss
from torch import Tensor, nn

from glassgpt.data.dataset import Dataset
from glassgpt.models.gpt2 import GPT2, GPT2Config

T, C, LAYERS = 32, 64, 4
STD = 0.02  # of the weights of GPT-2


class Untied(GPT2):
    """GPT-2 with an output matrix of its own."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.output = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        nn.init.normal_(self.output.weight, std=STD)

    def head(self, features: Tensor) -> Tensor:
        return self.output(features)


def with_std(std: float) -> Callable[[GPT2Config], GPT2]:
    """GPT-2 with all matrices larger by one factor."""

    def build(config: GPT2Config) -> GPT2:
        model = GPT2(config)
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.data *= std / STD
        return model

    return build


def unscaled(config: GPT2Config) -> GPT2:
    """GPT-2 whose projections into the residual stream have the same standard deviation as all other matrices."""
    model = GPT2(config)
    for block in model.blocks:
        for layer in (block.attn.proj, block.mlp.down):
            layer.weight.data *= math.sqrt(2 * config.n_layer)
    return model


VARIANTS: dict[str, Callable[[GPT2Config], GPT2]] = {
    "GPT-2: 0.02": GPT2,
    "ten times as large: 0.2": with_std(0.2),
    "fifty times as large: 1": with_std(1.0),
    "without 1/√(2L)": unscaled,
    "not tied": Untied,
}


def learn(build: Callable[[GPT2Config], GPT2], dataset: Dataset, seed: int, looks: Sequence[int]) -> list[float]:
    """Validation losses after so many steps of one training: `looks` begins with 0 and ends with the last step."""
    torch.manual_seed(seed)
    model = build(GPT2Config(dataset.tokenizer.vocab_size, T, n_layer=LAYERS, n_head=4, n_embd=C))
    losses: list[float] = []

    def look(step: int, _: float) -> None:
        if step in looks:
            losses.append(validation_loss(model, dataset, max_tokens=10_000))

    look(0, 0.0)
    train(model, dataset.train, adamw(model, 3e-3), steps=looks[-1], seed=seed, after_step=look)
    return losses


def main() -> None:
    """Prints the table: the mean of the seeds, and half of the range between them at the end."""
    parser = text_parser(__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    dataset = open_text(options.data)
    looks = (0, options.steps // 10, options.steps)
    row("validation loss after steps", *looks, "±")
    for title, build in VARIANTS.items():
        curves = [learn(build, dataset, seed, looks) for seed in range(options.seeds)]
        last = [curve[-1] for curve in curves]
        row(title, *map(statistics.fmean, zip(*curves, strict=True)), (max(last) - min(last)) / 2)


if __name__ == "__main__":
    main()
