"""Fits the scaling law by which `glassgpt train --minutes` chooses a size: python bench/scaling_law.py --runs FOLDER

Trains modern models of several sizes for several numbers of steps on Tiny Shakespeare, and fits the constants of
`glassgpt/costs/scaling_law.py` to the losses on the whole validation split. A run that is in the folder already is not
trained again. On two cores all of them take about half an hour.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import glassgpt as gg
from glassgpt.costs.scaling_law import ScalingLaw
from glassgpt.runs.listener import Listener
from glassgpt.runs.minutes import RECIPE, Size

# Blocks and channels, and the numbers of steps of 2,048 tokens. A text of a million characters is read up to 6 times.
RUNS = {
    Size(1, 2, 64): (300, 1000, 3000),
    Size(1, 4, 128): (400,),
    Size(2, 4, 128): (150, 400, 1000, 2500),
    Size(2, 6, 192): (200, 600),
    Size(4, 6, 192): (150, 600),
}
BETAS, REPEATS = np.arange(0.05, 1.5, 0.025), (2, 3, 4, 6, 8, 16, 32)


@dataclass(frozen=True)
class Result:
    """One run: the parameters of its blocks, the tokens it read and had, its loss on the whole validation split."""

    name: str
    parameters: int
    tokens: int
    text: int
    loss: float


def train(folder: Path, data: str, size: Size, steps: int) -> Result:
    """Trains one run, or opens the one that is there."""
    name = f"{size.n_layer}x{size.n_embd}-{steps}"
    settings = size.settings | {
        "training.max_steps": steps, "evaluation.every": 0, "evaluation.sample_every": 0, "checkpoint.snapshots": 0,
    }  # fmt: skip
    run = gg.train(RECIPE, data=data, run=folder / name, settings=settings, listener=Listener())
    assert run is not None
    assert run.summary is not None
    blocks = sum(p.numel() for key, p in run.model.named_parameters() if key.startswith("blocks."))
    text = json.loads((folder / name / "data.json").read_text())["train"]["tokens"]
    return Result(name, blocks, steps * run.config.training.batch_tokens, text, run.summary["val_loss"])


def fit(results: list[Result], alpha: float) -> ScalingLaw:
    """Least squares. For given exponents and R the law is linear in E, A and B."""
    best, law = np.inf, None
    losses = np.array([result.loss for result in results])
    sizes = np.array([float(result.parameters) for result in results]) ** -alpha
    for beta, repeats in itertools.product(BETAS, REPEATS):
        shape = ScalingLaw(0.0, 0.0, alpha, 0.0, float(beta), float(repeats))
        read = np.array([shape.worth(result.tokens, result.text) for result in results]) ** -beta
        terms = np.stack([np.ones_like(sizes), sizes, read], axis=1)
        E, A, B = np.linalg.lstsq(terms, losses, rcond=None)[0]
        error = np.square(terms @ (E, A, B) - losses).sum()
        if error < best and min(E, A, B) >= 0:
            best, law = error, ScalingLaw(float(E), float(A), alpha, float(B), float(beta), float(repeats))
    if law is None:
        raise SystemExit("these runs do not fit the law: the loss has to fall with the size and with the tokens")
    return law


def main() -> None:
    """Trains, fits and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/scaling-law"), help="folder of the runs")
    parser.add_argument("--data", default="shakespeare", help="the text, as for glassgpt train")
    parser.add_argument("--alpha", type=float, default=0.4, help="the exponent of the size, which is not fitted")
    options = parser.parse_args()
    results = []
    for size, lengths in RUNS.items():
        for steps in lengths:
            results.append(train(options.runs, options.data, size, steps))
            print(f"{results[-1].name:12} {results[-1].loss:.4f}", flush=True)
    law = fit(results, options.alpha)
    expected = [law.loss(result.parameters, result.tokens, result.text) for result in results]
    missed = np.array(expected) - [result.loss for result in results]
    print(law)
    print(f"it misses the runs by {np.sqrt(np.square(missed).mean()):.4f} nats (root mean square)")


if __name__ == "__main__":
    main()
