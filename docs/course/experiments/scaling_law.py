"""A small scaling law: trains four sizes on three amounts of text, and fits L(N, D) = E + A / N^α + B / D^β.

Each run reads its part of the text once, and its learning rate falls until that part ends. The peak of the rate is
RATE · 32 / C for a model with C channels, so the largest model has the lowest rate. The runs are ordinary run folders
in `--runs`, named after channels and steps. A run that is there already is not trained again.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lab import row, text_parser

import glassgpt as gg
from glassgpt.costs.flops import count_parameters, estimate_flops_per_token
from glassgpt.runs.listener import Listener

STEP = 512  # tokens: 16 rows of 32
RATE = 0.016  # peak for 32 channels
EXPONENTS = np.arange(0.05, 1.201, 0.025)


@dataclass(frozen=True)
class Result:
    """One run: N parameters, D tokens, the FLOPs of its training, the validation loss in nats per character."""

    name: str
    N: int
    D: int
    flops: float
    loss: float
    seconds: float


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^α + B / D^β (Hoffmann et al. 2022, equation 2)."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def loss(self, N: float, D: float) -> float:
        """The loss that the law expects, in nats per token."""
        return self.E + self.A / N**self.alpha + self.B / D**self.beta

    def best_size(self, compute: float) -> float:
        """The N with the lowest loss where 6 N D is `compute` (Hoffmann et al. 2022, equation 4)."""
        ratio = self.alpha * self.A / (self.beta * self.B)
        return float((ratio * (compute / 6) ** self.beta) ** (1 / (self.alpha + self.beta)))


def fit_law(results: Sequence[Result]) -> Law:
    """Least squares. For given exponents the law is linear in E, A and B, so only the exponents are searched."""
    N, D, loss = (np.array([getattr(each, name) for each in results], float) for name in ("N", "D", "loss"))
    best, law = np.inf, None
    for alpha, beta in itertools.product(EXPONENTS, EXPONENTS):
        terms = np.stack([np.ones_like(N), N**-alpha, D**-beta], axis=1)
        E, A, B = np.linalg.lstsq(terms, loss)[0]
        error = np.square(terms @ (E, A, B) - loss).sum()
        if error < best and min(E, A, B) >= 0:
            best, law = error, Law(*(float(each) for each in (E, A, alpha, B, beta)))
    if law is None:
        raise SystemExit("these runs do not fit the law: the loss has to fall with N and with D")
    return law


def train(options: argparse.Namespace, channels: int, steps: int, *, seed: int = 0, factor: float = 1) -> Result:
    """Trains section 10 of the ladder with two layers, or opens the run that is there; prints its line."""
    rate = factor * RATE * 32 / channels
    settings = {
        "model.architecture": "decoder", "model.n_layer": 2, "model.n_head": 2,
        "model.n_embd": channels, "model.block_size": 32,
        "training.batch_tokens": STEP, "training.max_steps": steps, "training.seed": seed,
        "optimizer.lr": rate, "schedule.min_lr": rate / 10, "schedule.warmup_steps": max(1, steps // 10),
        "evaluation.every": 0, "evaluation.sample_every": 0, "checkpoint.every": 0, "checkpoint.snapshots": 0,
    }  # fmt: skip
    name = f"c{channels}-s{steps}" + (f"-seed{seed}" if seed else "") + (f"-rate{factor:g}" if factor != 1 else "")
    run = gg.train("char-tiny", data=options.data, run=options.runs / name, settings=settings, listener=Listener())
    assert run is not None and run.summary is not None
    model, D = run.model, steps * STEP
    N = count_parameters(model) - channels * model.config.block_size  # without the position table
    result = Result(name, N, D, estimate_flops_per_token(model) * D, run.summary["val_loss"], run.summary["seconds"])
    row(name, N, D, f"{result.flops:.1e}", result.loss, f"{result.seconds:.0f}", width=11)
    return result


def spread(values: Sequence[float]) -> float:
    """Half of the distance between the smallest and the largest."""
    return (max(values) - min(values)) / 2


def leave_one_out(results: Sequence[Result]) -> None:
    """Predicts each run from the law of the others. The last run is the largest: there the law has to extrapolate."""
    row("left out", "predicted", "measured", "error", "E", "alpha", "beta", width=11)
    laws = [fit_law([each for each in results if each is not left_out]) for left_out in results]
    errors = [law.loss(each.N, each.D) - each.loss for law, each in zip(laws, results, strict=True)]
    for law, each, error in zip(laws, results, errors, strict=True):
        row(each.name, each.loss + error, each.loss, f"{error:+.3f}", law.E, law.alpha, law.beta, width=11)
    print(f"largest run: predicted {results[-1].loss + errors[-1]:.3f}, off by {abs(errors[-1]):.3f}")
    print(f"error of a run left out: {np.abs(errors).mean():.3f} in the mean, {np.abs(errors).max():.3f} at most")
    for name in ("E", "alpha", "beta"):
        values = [getattr(law, name) for law in laws]
        print(f"{name} is {min(values):.3f} to {max(values):.3f}, depending on the run left out")


def compare_sizes(table: Sequence[Sequence[Result]], law: Law) -> None:
    """Prints the runs of nearly the same compute: each is a size larger than the one before, with less text."""
    row("the same compute", "FLOPs", "N", "D", "loss", "law", width=11)
    for total in range(2, len(table) + len(table[0]) - 3):
        group = [line[total - i] for i, line in enumerate(table) if 0 <= total - i < len(line)]
        for each in group:
            row(each.name, f"{each.flops:.1e}", each.N, each.D, each.loss, law.loss(each.N, each.D), width=11)
        compute = sum(6 * each.N * each.D for each in group) / len(group)
        print(f"group {total - 1}: best N by the law for 6 N D = {compute:.1e}: {law.best_size(compute):,.0f}\n")


def main() -> None:
    """Trains, prints the table, fits the law, and tests it on runs that it has not seen."""
    parser = text_parser(__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs", "law"))
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 30, 54, 96])
    parser.add_argument("--steps", type=int, nargs="+", default=[230, 670, 1960])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)  # for matrices this small, two threads mostly wait for each other on a busy machine
    row("run", "N", "D", "FLOPs", "loss", "seconds", width=11)
    table = [[train(options, channels, steps) for steps in options.steps] for channels in options.channels]
    losses = [train(options, options.channels[1], options.steps[1], seed=seed).loss for seed in range(options.seeds)]
    rates = [
        [train(options, channels, options.steps[0], factor=factor).loss for factor in (0.5, 1, 2)]
        for channels in (options.channels[0], options.channels[-1])
    ]
    print()
    row("losses", *(f"D = {each.D:,}" for each in table[0]))
    for number, line in enumerate(table, 1):
        row(f"size {number}, N = {line[0].N:,}", *(each.loss for each in line))
    print(f"{len(losses)} seeds of {table[1][1].name}: {sum(losses) / len(losses):.3f} ± {spread(losses):.3f}")
    row("is the rule for the rate fair?", "rate / 2", "the rule", "rate · 2")
    for name, line in zip(("smallest", "largest"), rates, strict=True):
        row(f"{name}, {options.steps[0]} steps", *line)
    print()
    results = [each for line in table for each in line]
    law = fit_law(results)
    print(f"E = {law.E:.3f}, A = {law.A:.4g}, alpha = {law.alpha:.3f}, B = {law.B:.4g}, beta = {law.beta:.3f}")
    print(f"error of the fit: {np.mean([abs(law.loss(each.N, each.D) - each.loss) for each in results]):.3f}\n")
    leave_one_out(results)
    print()
    compare_sizes(table, law)


if __name__ == "__main__":
    main()
