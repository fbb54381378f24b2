"""batches → weights. The one loop: all training calls `fit`, with another loss or other batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.runtime.device import Runtime
from glassgpt.runtime.parallel import full_tensor
from glassgpt.training.losses import Batch, LossFunction

MAX_SKIPPED = 5  # steps in a row that may have a non-finite loss or gradient
OVERFLOW = "float16 overflow"  # skipped too, but expected: the loss scale was too high and has been halved


@dataclass(frozen=True)
class TrainState:
    """How far training has come. `step` counts optimizer steps done, skipped ones included."""

    step: int = 0
    tokens_seen: int = 0
    skipped_in_row: int = 0


@dataclass(frozen=True)
class StepResult:
    """One optimizer step: loss in nats per trained-on token, global gradient norm before clipping, seconds."""

    loss: float
    grad_norm: float
    lr: float
    tokens: int
    seconds: float
    skipped: str | None = None  # why the step was not applied


@dataclass(frozen=True)
class Update:
    """What `train_step` did: the same on every rank."""

    loss: float  # nats per trained-on token of the whole batch
    grad_norm: float  # global, before clipping
    skipped: str | None  # why it was not applied
    interrupted: bool  # whether any rank wants to stop


class Diverged(UserError):
    """Too many steps in a row had a non-finite loss or gradient."""


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    batches: Callable[[int], Sequence[Batch]],
    loss_function: LossFunction,
    lr_at: Callable[[int], float],
    runtime: Runtime,
    scaler: torch.amp.GradScaler,
    max_steps: int,
    grad_clip: float,
    seed: int,
    state: TrainState,
    on_step: Callable[[TrainState, StepResult], None],
    should_stop: Callable[[], bool] = lambda: False,
    interrupted: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Trains `model`, as `runtime.wrap` returned it, until `max_steps` or told to stop; returns how far it came.

    `batches(step)` gives this rank's micro-batches of a step, `lr_at(step)` its learning rate; both are pure, so that a
    run can stop after any step and go on later. `on_step` sees every finished step; it may evaluate, save and print.
    `should_stop` must say the same on every rank; where `interrupted` does on one of them, all stop after the step in
    which they learn of it. Raises `Diverged` after MAX_SKIPPED steps in a row that could not be applied.
    """
    alone = not runtime.ranks.several
    stopping = alone and interrupted()
    model.train()
    while state.step < max_steps and not stopping and not should_stop():
        started = time.perf_counter()
        lr = lr_at(state.step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        micro_batches = batches(state.step)
        update = train_step(
            model, optimizer, scaler, micro_batches, loss_function, runtime,
            grad_clip=grad_clip, seed=seed, step=state.step, interrupted=interrupted,
        )  # fmt: skip
        skipped = update.skipped
        tokens = runtime.ranks.world_size * count_targets(micro_batches)
        result = StepResult(update.loss, update.grad_norm, lr, tokens, time.perf_counter() - started, skipped)
        state = replace(
            state,
            step=state.step + 1,
            tokens_seen=state.tokens_seen + tokens,
            skipped_in_row=state.skipped_in_row + (skipped != OVERFLOW) if skipped else 0,
        )
        on_step(state, result)
        if state.skipped_in_row >= MAX_SKIPPED:
            raise Diverged(
                f"training stopped at step {state.step}: {MAX_SKIPPED} steps in a row had a {skipped}, and none of them"
                " was applied; look at the learning rate (optimizer.lr), the warm-up (schedule.warmup_steps), the"
                " precision (--dtype float32) and the last lines of metrics.jsonl"
            )
        stopping = interrupted() if alone else update.interrupted
    return state


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    micro_batches: Sequence[Batch],
    loss_function: LossFunction,
    runtime: Runtime,
    *,
    grad_clip: float,
    seed: int,
    step: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> Update:
    """One update from one global batch, of which `micro_batches` is this rank's part.

    The gradient is that of (sum of all losses) / (weight of the whole batch), however it is cut into ranks and
    micro-batches; every rank must have as many targets, masked ones counted. Ranks exchange gradients once, and the
    sums with `interrupted` once.
    """
    optimizer.zero_grad(set_to_none=True)
    # The weight is only known at the end. Dividing by the number of targets first keeps float16 gradients in range.
    expected = count_targets(micro_batches)
    sums: list[Tensor] = []
    weight: float | Tensor = 0.0
    for micro_step, batch in enumerate(micro_batches):
        runtime.seed_dropout(seed, step, micro_step)
        with runtime.gradient_exchange(model, wanted=micro_step == len(micro_batches) - 1):
            with runtime.autocast():
                loss_sum, loss_weight = loss_function(model, batch)
            scaler.scale(loss_sum / expected).backward()
        sums.append(loss_sum.detach())
        weight = weight + loss_weight
    nats = float(torch.stack(sums).cpu().double().sum())  # the one wait for a GPU
    nats, weight, asked = runtime.ranks.sum([nats, float(weight), float(interrupted())])
    if weight == 0:
        return Update(math.nan, 0.0, "batch without a trained-on target", asked > 0)

    scaler.unscale_(optimizer)
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    expected *= runtime.ranks.world_size  # the exchange has averaged over the ranks
    if weight != expected:
        torch._foreach_mul_(gradients, expected / weight)
    norm = full_tensor(torch.nn.utils.get_total_norm(gradients))
    loss, grad_norm = nats / weight, float(norm)

    skipped = "non-finite loss" if not math.isfinite(loss) else None
    if skipped is None and not math.isfinite(grad_norm):
        skipped = "non-finite gradient"
    if skipped is None:
        if grad_clip and grad_norm > grad_clip:
            torch._foreach_mul_(gradients, grad_clip / (grad_norm + 1e-6))
        scaler.step(optimizer)
    if scaler.is_enabled():
        # An overflow is how the scaler finds its scale: it halves and goes on, as long as there is something to halve.
        if skipped == "non-finite gradient" and scaler.get_scale() > 1.0:
            skipped = OVERFLOW
        scaler.update()
    return Update(loss, grad_norm, skipped, asked > 0)


def count_targets(micro_batches: Sequence[Batch]) -> int:
    """The targets of a rank's batch, masked ones too."""
    return sum(batch.targets.numel() for batch in micro_batches)
