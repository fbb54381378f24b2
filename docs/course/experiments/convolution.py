"""Attention against convolution, on two tasks: plain text, and finding something wherever it stands.

Both models are section 8 with one block: embedding, a mixer between positions, an MLP, residuals, an output layer. The
mixers have equally many parameters. A convolution mixes by distance: "the token two back" has its own matrix, and
nothing further back than the kernel is seen. Attention mixes by content, at any distance.
"""

from __future__ import annotations

import statistics
from itertools import product

import torch
import torch.nn.functional as F
from lab import adamw, n_parameters, open_text, row, text_parser
from torch import Tensor, nn

import glassgpt as gg
from glassgpt.course.climb import LadderTraining
from glassgpt.models import Model
from glassgpt.models.ladder import LadderConfig, Section
from glassgpt.models.ladder.s08_residual import ResidualModel

RATES = (1e-3, 3e-3)
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


def convolution_model(config: LadderConfig) -> Model:
    """Section 8 with convolutions in place of attention."""
    model = ResidualModel(config)
    for block in model.blocks:
        block.attn = CausalConvolution(config.n_embd)
    return model


MODELS = {"attention": ResidualModel, "convolution": convolution_model}


def lookup_batch(generator: torch.Generator, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lists of pairs (key, value) with different keys, then one of the keys; the answer is its value.

    A pair is one token, a question another. Returns inputs (rows, N_PAIRS + 1), answers (rows,), and how many tokens
    before the question the pair stands (rows,), from 1 to N_PAIRS.
    """
    keys = torch.rand(rows, N_KEYS, generator=generator).argsort(dim=1)[:, :N_PAIRS]
    values = torch.randint(N_VALUES, (rows, N_PAIRS), generator=generator)
    asked = torch.randint(N_PAIRS, (rows, 1), generator=generator)
    question = N_KEYS * N_VALUES + keys.gather(1, asked)
    inputs = torch.cat([keys * N_VALUES + values, question], dim=1)
    return inputs, values.gather(1, asked).squeeze(1), N_PAIRS - asked.squeeze(1)


def lookup_accuracy(mixer: str, seed: int, steps: int) -> tuple[float, float]:
    """The shares of right answers on new lists, where the pair is within the kernel and where it is further back.

    The model is trained on `steps` batches of 64 lists.
    """
    torch.manual_seed(seed)
    model = MODELS[mixer](LadderConfig(N_KEYS * N_VALUES + N_KEYS, block_size=N_PAIRS + 1, n_layer=1, n_embd=32))
    optimizer = adamw(model, 3e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        inputs, answers, _ = lookup_batch(generator, rows=64)
        loss = F.cross_entropy(model(inputs)[:, -1], answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        inputs, answers, back = lookup_batch(generator, rows=4000)
        right = (model(inputs)[:, -1].argmax(dim=-1) == answers).float()
    return right[back < KERNEL].mean().item(), right[back >= KERNEL].mean().item()


def main() -> None:
    """Prints two tables."""
    parser = text_parser(__doc__)
    parser.add_argument("--steps", type=int, default=LadderTraining.steps, help="of each training on text")
    parser.add_argument("--lookup-steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    dataset = open_text(options.data)
    row("text: loss", *(f"seed {seed}" for seed in range(options.seeds)), "mean", "parameters")
    for lr, (mixer, architecture) in product(RATES, MODELS.items()):
        section = Section(8, mixer, "one block of section 8", architecture)
        training = LadderTraining(options.steps, lr=lr)
        climbs = [gg.climb(section, seed, dataset, training) for seed in range(options.seeds)]
        losses = [climb.val_loss for _, climb in climbs]
        row(f"{mixer}, rate {lr:g}", *losses, statistics.fmean(losses), f"{n_parameters(climbs[0][0]):,}")
    row("lookup: right answers", f"{KERNEL - 1} nearest", "further back", "by seed")
    for mixer in MODELS:
        found = [lookup_accuracy(mixer, seed, options.lookup_steps) for seed in range(options.seeds)]
        near, far = (statistics.fmean(shares) for shares in zip(*found, strict=True))
        row(mixer, f"{near:.0%}", f"{far:.0%}", *(f"{share:.0%}" for _, share in found))
    row("blind guess", f"{1 / N_VALUES:.0%}", f"{1 / N_VALUES:.0%}")


if __name__ == "__main__":
    main()
