"""Four ways to use the same gradient: plain descent, Adam, Adam with L2, and AdamW, with three seeds each.

The same model (section 9, two layers) on the same batches. Adam with L2 adds decay · weight to the gradient, so Adam
divides it by the gradient's usual size. AdamW subtracts lr · decay · weight beside Adam's step (Loshchilov & Hutter
2019). SGD has momentum 0.9 and no decay.
"""

from __future__ import annotations

import torch
from lab import open_text, row, text_parser, train, validation_loss
from torch import nn

from glassgpt.data.dataset import Dataset
from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s09_layernorm import LayerNormModel

DECAY, BETAS = 0.1, (0.9, 0.99)
SGD_RATES, ADAM_RATES = (0.3, 1.0), (0.003, 0.01)


def build_optimizer(name: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """One of the four by its name."""
    if name == "SGD":
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    if name == "AdamW":
        return torch.optim.AdamW(model.parameters(), lr=lr, betas=BETAS, weight_decay=DECAY)
    decay = DECAY if name == "Adam + L2" else 0.0
    return torch.optim.Adam(model.parameters(), lr=lr, betas=BETAS, weight_decay=decay)


def loss_of(dataset: Dataset, name: str, lr: float, steps: int, seeds: int) -> str:
    """The validation loss: the mean over the seeds, ± half of the distance between the best and the worst."""
    losses = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = LayerNormModel(
            LadderConfig(vocab_size=dataset.tokenizer.vocab_size, block_size=32, n_layer=2, n_embd=48)
        )
        train(model, dataset.train, build_optimizer(name, model, lr), steps=steps, seed=seed)
        losses.append(validation_loss(model, dataset, max_tokens=10_000))
    return f"{sum(losses) / seeds:.3f} ± {(max(losses) - min(losses)) / 2:.3f}"


def main() -> None:
    """Prints the table."""
    parser = text_parser(__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    dataset = open_text(options.data)
    for name, rates in (("SGD", SGD_RATES), ("Adam", ADAM_RATES), ("Adam + L2", ADAM_RATES), ("AdamW", ADAM_RATES)):
        for lr in rates:
            row(f"{name}, rate {lr:g}", loss_of(dataset, name, lr, options.steps, options.seeds))


if __name__ == "__main__":
    main()
