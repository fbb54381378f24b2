"""The training loop. Every kind of training calls `fit`, with its own batches and loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError, option
from glassgpt.runtime.device import Runtime
from glassgpt.runtime.parallel import full_tensor, gradient_exchange, keeps_gradients
from glassgpt.training.losses import Loss, MicroBatch

MAX_SKIPPED = 5  # consecutive steps with a non-finite loss or gradient before training stops
OVERFLOW = "float16 overflow"  # skipped too, but expected: the loss scale was too high and has been halved


@dataclass(frozen=True)
class TrainState:
    """Training progress. `step` counts finished optimizer steps, including skipped ones."""

    step: int = 0
    tokens_seen: int = 0
    skipped_in_row: int = 0


@dataclass(frozen=True)
class StepResult:
    """One optimizer step, the same on every rank."""

    loss: float  # sum of losses / weight of the global batch: nats per trained-on token
    grad_norm: float  # global, before clipping
    lr: float  # before the lr_factor of a parameter group
    tokens: int  # over all ranks
    seconds: float
    skipped: str | None = None  # why the step was not applied
    figures: Mapping[str, float] = field(default_factory=dict)  # other metrics that the loss function reports, by name


@dataclass(frozen=True)
class Update:
    """The result of `train_step`, the same on every rank; see `StepResult`."""

    loss: float
    grad_norm: float
    tokens: int
    figures: Mapping[str, float]
    skipped: str | None
    interrupted: bool  # whether any rank wants to stop


class Diverged(UserError):
    """Too many steps in a row had a non-finite loss or gradient."""


def fit(
    parallel: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    batches: Callable[[int], Sequence[MicroBatch]],
    lr_at: Callable[[int], float],
    runtime: Runtime,
    scaler: torch.amp.GradScaler,
    max_steps: int | Callable[[], int],
    grad_clip: float,
    seed: int | None,
    expected_weight: float,
    state: TrainState,
    on_step: Callable[[TrainState, StepResult], None],
    should_stop: Callable[[], bool] = lambda: False,
    interrupted: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Trains the module returned by `runtime.wrap` up to `max_steps`, or until told to stop. Returns the new state.

    A function for `max_steps` is asked before every step: the plan of a run that has to end in time may change.
    `batches(step)` returns this rank's micro-batches of a step, as many on every rank. `lr_at(step)` returns the
    learning rate, which a parameter group multiplies by its `lr_factor`, if any. `seed` is None for a model without
    dropout, and `expected_weight` approximates the weight of one rank's batch, see `train_step`. `on_step` is called
    after every step; it may evaluate, save and print.
    `should_stop` must return the same value on every rank. If `interrupted` is true on one rank, all ranks stop after
    the step in which they learn of it. Raises `Diverged` on every rank after MAX_SKIPPED consecutive steps could not be
    applied.
    """
    alone = not runtime.ranks.several
    stopping = alone and interrupted()
    parallel.train()
    while state.step < (max_steps() if callable(max_steps) else max_steps) and not stopping and not should_stop():
        started = time.perf_counter()
        lr = lr_at(state.step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        update = train_step(
            parallel, optimizer, scaler, batches(state.step), runtime,
            grad_clip=grad_clip, seed=seed, step=state.step, expected_weight=expected_weight, interrupted=interrupted,
        )  # fmt: skip
        skipped, seconds = update.skipped, time.perf_counter() - started
        result = StepResult(update.loss, update.grad_norm, lr, update.tokens, seconds, skipped, update.figures)
        state = replace(
            state,
            step=state.step + 1,
            tokens_seen=state.tokens_seen + update.tokens,
            skipped_in_row=state.skipped_in_row + (skipped != OVERFLOW) if skipped else 0,
        )
        on_step(state, result)
        if state.skipped_in_row >= MAX_SKIPPED:
            raise Diverged(
                f"training stopped at step {state.step}: {MAX_SKIPPED} steps in a row had a {skipped} and were not"
                " applied; check the learning rate (optimizer.lr), the warm-up (schedule.warmup_steps), the precision"
                f" ({option(**{'machine.dtype': 'float32'})}) and the last lines of metrics.jsonl"
            )
        stopping = interrupted() if alone else update.interrupted
    return state


def train_step(
    parallel: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    micro_batches: Sequence[MicroBatch],
    runtime: Runtime,
    *,
    grad_clip: float,
    seed: int | None,
    step: int,
    expected_weight: float,
    interrupted: Callable[[], bool] = lambda: False,
) -> Update:
    """One optimizer step on a global batch; `micro_batches` is this rank's part of it.

    The gradient is that of (sum of all losses and penalties) / (weight of the global batch), however the batch is split
    into ranks and micro-batches. The weight is known only at the end, after a sum over the ranks. Until then, losses
    are divided by `expected_weight`, a positive constant that is the same on all ranks. It keeps float16 gradients in
    range and has no other effect. Ranks exchange all sums once, and gradients as `gradient_exchange` says. The host
    waits for the device once. With a `seed` of None, torch's random numbers are left alone: for a model without
    dropout.
    """
    optimizer.zero_grad(set_to_none=len(micro_batches) == 1 or not keeps_gradients(parallel))
    losses: list[Loss] = []
    for micro_step, batch in enumerate(micro_batches):
        if seed is not None:
            runtime.seed_dropout(seed, step, micro_step)
        with gradient_exchange(parallel, wanted=micro_step == len(micro_batches) - 1):
            with runtime.autocast():
                loss: Loss = parallel(batch)
            scaler.scale(loss.objective / expected_weight).backward()
        losses.append(replace(loss, sum=loss.sum.detach(), penalty=None))
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for parameter in parameters:
        if parameter.grad.is_sparse:  # of a tied embedding whose head the loss does not use
            parameter.grad = parameter.grad.to_dense()
    gradients = [parameter.grad for parameter in parameters]
    scaler.unscale_(optimizer)
    norm = full_tensor(torch.nn.utils.get_total_norm(gradients))
    grad_norm, sums = _read_sums(norm, losses, micro_batches, interrupted())
    total, weight, tokens, stop_requested, figures = _add_up(sums, losses, runtime)
    if weight == 0:
        if scaler.is_enabled():
            scaler.update()  # or the next step could not unscale
        return Update(math.nan, 0.0, tokens, figures, "batch without a trained-on target", stop_requested)

    mean = total / weight
    scale = expected_weight * runtime.ranks.world_size  # the exchange averaged the gradients over the ranks
    if weight != scale:
        torch._foreach_mul_(gradients, scale / weight)
        grad_norm *= scale / weight

    skipped = "non-finite loss" if not math.isfinite(mean) else None
    if skipped is None and not math.isfinite(grad_norm):
        skipped = "non-finite gradient"
    if skipped is None:
        if grad_clip and grad_norm > grad_clip:
            torch._foreach_mul_(gradients, grad_clip / (grad_norm + 1e-6))
        scaler.step(optimizer)
    if scaler.is_enabled():
        # Overflow is how the scaler finds its scale: while the scale is above 1, it is halved and training continues.
        if skipped == "non-finite gradient" and scaler.get_scale() > 1.0:
            skipped = OVERFLOW
        scaler.update()
    return Update(mean, grad_norm, tokens, figures, skipped, stop_requested)


def _read_sums(
    norm: Tensor, losses: Sequence[Loss], micro_batches: Sequence[MicroBatch], interrupted: bool
) -> tuple[float, list[float]]:
    """The gradient's norm, and this rank's sums: losses, weights, tokens, whether to stop, and the parts of figures.

    One copy from the device brings everything, because each copy waits until the device has done all work so far.
    """
    columns: list[list[Tensor | float]] = [[loss.sum for loss in losses], [loss.weight for loss in losses]]
    columns += [[loss.figures[name][part] for loss in losses] for name in sorted(losses[0].figures) for part in (0, 1)]
    on_device = [value for column in columns for value in column if isinstance(value, Tensor)]
    values = torch.stack([value.detach().to(norm.device) for value in (norm, *on_device)]).tolist()
    grad_norm, read = values[0], iter(values[1:])
    sums = [sum(next(read) if isinstance(value, Tensor) else float(value) for value in column) for column in columns]
    return grad_norm, [*sums[:2], sum(batch.n_tokens for batch in micro_batches), float(interrupted), *sums[2:]]


def _add_up(
    sums: list[float], losses: Sequence[Loss], runtime: Runtime
) -> tuple[float, float, int, bool, dict[str, float]]:
    """Totals over the ranks: sum of losses, weight, tokens, whether to stop, and the figures."""
    total, weight, tokens, stop_requests, *parts = runtime.ranks.sum(sums)
    figures = {
        name: figure_sum / figure_weight if figure_weight else math.nan
        for name, figure_sum, figure_weight in zip(sorted(losses[0].figures), parts[::2], parts[1::2], strict=True)
    }
    return total, weight, int(tokens), stop_requests > 0, figures
