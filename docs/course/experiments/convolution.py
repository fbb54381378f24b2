"""Attention against convolution, on two tasks: plain text, and finding something wherever it stands.

Both models are section 8 with one block: embedding, a mixer between positions, an MLP, residuals, a head. The mixers
have about as many parameters. A convolution mixes by distance: "the token two back" has its own matrix, and nothing
further back than the kernel is seen. Attention mixes by content, at any distance.
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from lab import adamw, n_parameters, open_text, row, train, validation_loss
from torch import Tensor, nn

from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s08_residual import ResidualModel

KERNEL = 4  # tokens that a convolution sees: C²·KERNEL weights, attention has 4C²
N_KEYS, N_VALUES, N_PAIRS = 16, 8, 12


class CausalConvolution(nn.Module):
    """x (B, T, C) to (B, T, C): each position sees itself and the KERNEL - 1 before it."""

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_embd, n_embd, KERNEL)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x.transpose(1, 2), (KERNEL - 1, 0))  # zeros before the start: nothing from the future
        return self.conv(padded).transpose(1, 2)


def build(mixer: str, config: LadderConfig) -> nn.Module:
    """Section 8 with one block, its attention left in place or replaced by a convolution."""
    torch.manual_seed(0)
    model = ResidualModel(config)
    if mixer == "convolution":
        for block in model.blocks:
            block.attn = CausalConvolution(config.n_embd)
    return model


def lookup_batch(generator: torch.Generator, rows: int = 64) -> tuple[Tensor, Tensor]:
    """Lists of pairs (key, value) with different keys, then one of the keys; the answer is its value.

    A pair is one token, a question another: inputs (rows, N_PAIRS + 1), answers (rows,).
    """
    keys = torch.rand(rows, N_KEYS, generator=generator).argsort(dim=1)[:, :N_PAIRS]
    values = torch.randint(N_VALUES, (rows, N_PAIRS), generator=generator)
    asked = torch.randint(N_PAIRS, (rows, 1), generator=generator)
    question = N_KEYS * N_VALUES + keys.gather(1, asked)
    return torch.cat([keys * N_VALUES + values, question], dim=1), values.gather(1, asked).squeeze(1)


def lookup_accuracy(mixer: str, steps: int = 800) -> float:
    """The share of right answers on new lists after training on `steps` batches of 64."""
    config = LadderConfig(vocab_size=N_KEYS * N_VALUES + N_KEYS, block_size=N_PAIRS + 1, n_layer=1, n_embd=64)
    model = build(mixer, config)
    optimizer = adamw(model, 3e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        inputs, answers = lookup_batch(generator)
        loss = F.cross_entropy(model(inputs)[:, -1], answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        inputs, answers = lookup_batch(generator, rows=2000)
        return (model(inputs)[:, -1].argmax(dim=-1) == answers).float().mean().item()


def main() -> None:
    """Prints the table."""
    dataset = open_text(__doc__ or "")
    row("", "parameters", "loss on text", "seconds", "lookups right")
    for mixer in ("attention", "convolution"):
        model = build(mixer, LadderConfig(vocab_size=dataset.tokenizer.vocab_size, block_size=32, n_layer=1))
        started = time.perf_counter()
        train(model, dataset.train, adamw(model, 5e-3), steps=800)
        seconds = time.perf_counter() - started
        loss = validation_loss(model, dataset)
        row(mixer, f"{n_parameters(model):,}", loss, f"{seconds:.1f}", f"{lookup_accuracy(mixer):.1%}")
    row("blind guess", "", "", "", f"{1 / N_VALUES:.1%}")


if __name__ == "__main__":
    main()
