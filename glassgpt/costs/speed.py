"""How fast a run's own step is on this device, measured in a few seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from glassgpt.models import Model, ModelConfig
from glassgpt.runtime.device import Runtime
from glassgpt.training.fit import train_step
from glassgpt.training.losses import Batch, next_token_loss
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer

ENOUGH = 1.0  # seconds: a step that takes longer is measured as it is, with no larger micro-batch


def random_batches(count: int, rows: int, sizes: ModelConfig, device: torch.device) -> list[Batch]:
    """`count` micro-batches of ids that are drawn evenly; how fast a step is does not depend on them."""
    windows = [torch.randint(sizes.vocab_size, (rows, sizes.block_size + 1)) for _ in range(count)]
    return [Batch(window[:, :-1].contiguous().to(device), window[:, 1:].contiguous().to(device)) for window in windows]


def measure_tokens_per_second(
    model: Model,
    config: OptimizerConfig,
    runtime: Runtime,
    *,
    micro_batch: int,
    seconds: float,
) -> tuple[float, int]:
    """Tokens per second of whole steps over one micro-batch, and how many rows that had.

    It has `micro_batch` rows, or the largest power of two below it with a step short enough to be repeated within
    `seconds`. A run that accumulates over several micro-batches does without some updates, and is no slower.
    """
    optimizer, scaler = build_optimizer(model, config), runtime.build_scaler()
    parallel = runtime.wrap(model, next_token_loss).train()

    def step(rows: int) -> float:
        batches = random_batches(1, rows, model.config, runtime.device)
        began = time.perf_counter()
        # It ends by reading the loss and so waits for a GPU, but for the update, which the next step waits for.
        weight = rows * model.config.block_size
        train_step(parallel, optimizer, scaler, batches, runtime, grad_clip=1.0, seed=0, step=0, expected_weight=weight)
        return time.perf_counter() - began

    rows = micro_batch if runtime.compile else _choose_rows(step, micro_batch)  # every size would compile anew
    step(rows)
    began = time.perf_counter()
    times = [step(rows)]
    while time.perf_counter() - began < seconds:
        times.append(step(rows))
    return rows * model.config.block_size / statistics.median(times), rows


def _choose_rows(step: Callable[[int], float], most: int) -> int:
    """Doubles the rows from one up to `most` while a step is short; each size is run twice, as the first warms up."""
    rows = 1
    while True:
        step(rows)
        if step(rows) > ENOUGH or rows == most:
            return rows
        rows = min(2 * rows, most)
