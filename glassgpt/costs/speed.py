"""Measures the speed of a training step on this device in a few seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from glassgpt.costs.typical import loss_function, random_batch
from glassgpt.models import AnyModel
from glassgpt.models.sizes import draws_dropout
from glassgpt.runtime.device import Runtime
from glassgpt.training.fit import train_step
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer

ENOUGH = 1.0  # seconds: once a step takes longer, the micro-batch is not enlarged further


def measure_tokens_per_second(
    model: AnyModel,
    config: OptimizerConfig,
    runtime: Runtime,
    *,
    micro_batch: int,
    seconds: float,
) -> tuple[float, int]:
    """Tokens per second of full training steps over one micro-batch, and the number of rows in it.

    It has `micro_batch` rows, or the largest power of two below with a step short enough to repeat within `seconds`.
    A run that accumulates several micro-batches makes fewer updates per token, so it is no slower.
    """
    optimizer, scaler = build_optimizer(model, config), runtime.build_scaler()
    parallel = runtime.wrap(model, loss_function(model)).train()

    def step(rows: int) -> float:
        batches = [random_batch(model, rows, runtime.device)]
        began = time.perf_counter()
        # A step ends by reading the loss, which waits for the GPU. The next step waits for the update.
        weight, seed = rows * model.config.block_size, 0 if draws_dropout(model.config) else None
        with runtime.compiling():
            train_step(
                parallel, optimizer, scaler, batches, runtime,
                grad_clip=1.0, seed=seed, step=0, expected_weight=weight,
            )  # fmt: skip
        return time.perf_counter() - began

    rows = micro_batch if runtime.compile else _choose_rows(step, micro_batch)  # each size would compile again
    step(rows)
    began = time.perf_counter()
    times = [step(rows)]
    while time.perf_counter() - began < seconds:
        times.append(step(rows))
    return rows * model.config.block_size / statistics.median(times), rows


def _choose_rows(step: Callable[[int], float], most: int) -> int:
    """Doubles the rows from 1 up to `most` while a step is short. Each size runs twice: the first run is a warm-up."""
    rows = 1
    while True:
        step(rows)
        if step(rows) > ENOUGH or rows == most:
            return rows
        rows = min(2 * rows, most)
