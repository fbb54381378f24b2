"""What AdamW changes: one learning rate that fits all parameters, and a weight decay that is the same for all.

The same model (section 9, two layers) from the same first weights on the same batches, by three optimizers. Adam with
L2 adds decay · weight to the gradient, so Adam divides it by the gradient's usual size; AdamW subtracts
lr · decay · weight beside Adam's step (Loshchilov & Hutter 2019). SGD has momentum 0.9 and no decay.
"""

from __future__ import annotations

import torch
from lab import open_text, row, train, validation_loss
from torch import nn

from glassgpt.data.dataset import Dataset
from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s09_layernorm import LayerNormModel

DECAY = 0.1
ADAM_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
SGD_RATES = (0.03, 0.1, 0.3, 1.0)


def build_model(vocab_size: int) -> nn.Module:
    """Fresh weights, the same each time."""
    torch.manual_seed(0)
    return LayerNormModel(LadderConfig(vocab_size=vocab_size, block_size=32, n_layer=2, n_embd=48))


def build_optimizer(name: str, model: nn.Module, lr: float, decay: float) -> torch.optim.Optimizer:
    """One of the three by its name."""
    if name == "SGD":
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    if name == "Adam + L2":
        return torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=decay)
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=decay)


def losses(dataset: Dataset, name: str, rates: tuple[float, ...], decay: float) -> list[float]:
    """The validation loss at each learning rate."""
    found = []
    for lr in rates:
        model = build_model(dataset.tokenizer.vocab_size)
        train(model, dataset.train, build_optimizer(name, model, lr, decay), steps=300)
        found.append(validation_loss(model, dataset, max_tokens=10_000))
    return found


def main() -> None:
    """Prints the table."""
    dataset = open_text(__doc__ or "")
    row("loss at learning rate", *SGD_RATES)
    row("  SGD with momentum", *losses(dataset, "SGD", SGD_RATES, 0.0))
    row("loss at learning rate", *ADAM_RATES)
    row("  Adam, no decay", *losses(dataset, "Adam + L2", ADAM_RATES, 0.0))
    for name in ("Adam + L2", "AdamW"):
        row(f"  {name}, decay {DECAY}", *losses(dataset, name, ADAM_RATES, DECAY))


if __name__ == "__main__":
    main()
