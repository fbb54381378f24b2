"""What warm-up, decay and clipping are good for: each is left out in turn, with three seeds, at two learning rates.

The model is section 9 of the ladder with two layers, trained by the loop of GlassGPT itself (`training/fit.py`).
"""

from __future__ import annotations

import torch
from lab import CPU, open_text, row, text_parser, validation_loss

from glassgpt.data.dataset import Dataset
from glassgpt.data.loader import Loader
from glassgpt.models.ladder import LadderConfig
from glassgpt.models.ladder.s09_layernorm import LayerNormModel
from glassgpt.training.fit import TrainState, fit
from glassgpt.training.losses import Batch, next_token_loss
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer
from glassgpt.training.schedules import ScheduleConfig, learning_rate

T, ROWS, CLIP = 32, 16, 0.5
ARMS = {  # what is left out: warm-up, decay, clipping
    "with all three": (False, False, False),
    "no warm-up": (True, False, False),
    "no decay": (False, True, False),
    "no clipping": (False, False, True),
}


def train(
    dataset: Dataset, peak: float, left_out: tuple[bool, bool, bool], steps: int, seed: int
) -> tuple[float, float]:
    """The validation loss after one training, and the share of the steps whose gradient was longer than CLIP."""
    no_warmup, no_decay, no_clipping = left_out
    schedule = ScheduleConfig(
        "constant" if no_decay else "cosine", 0 if no_warmup else max(1, steps // 10), steps, min_lr=peak / 10
    )
    torch.manual_seed(seed)
    model = LayerNormModel(LadderConfig(vocab_size=dataset.tokenizer.vocab_size, block_size=T, n_layer=2, n_embd=48))
    loader = Loader(dataset.train, T, ROWS, seed)
    norms: list[float] = []
    fit(
        CPU.wrap(model, next_token_loss),
        build_optimizer(model, OptimizerConfig(lr=peak)),
        batches=lambda step: [Batch(*loader.rows(step))],
        lr_at=lambda step: learning_rate(step, peak, schedule),
        runtime=CPU,
        scaler=CPU.build_scaler(),
        max_steps=steps,
        grad_clip=0.0 if no_clipping else CLIP,
        seed=None,
        expected_weight=T * ROWS,
        state=TrainState(),
        on_step=lambda state, result: norms.append(result.grad_norm),
    )
    return validation_loss(model, dataset, max_tokens=10_000), sum(norm > CLIP for norm in norms) / steps


def main() -> None:
    """Prints the table."""
    parser = text_parser(__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.1])
    options = parser.parse_args()
    dataset = open_text(options.data)
    for name, left_out in ARMS.items():
        cells = []
        for peak in options.rates:
            runs = [train(dataset, peak, left_out, options.steps, seed) for seed in range(options.seeds)]
            losses, shares = zip(*runs, strict=True)
            cells.append(f"{sum(losses) / len(losses):.3f} ± {(max(losses) - min(losses)) / 2:.3f}")
            cells.append(f"{100 * sum(shares) / len(shares):.0f}% long")
        row(name, *cells)


if __name__ == "__main__":
    main()
