"""batches → weights. The one loop: all training calls `fit`, with other batches and another loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError
from glassgpt.runtime.device import Runtime
from glassgpt.runtime.parallel import full_tensor
from glassgpt.training.losses import Loss, MicroBatch

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
    """One optimizer step, the same on every rank."""

    loss: float  # the sum of the losses over the weight of the whole batch: nats per trained-on token
    grad_norm: float  # global, before clipping
    lr: float  # before the factors of the parameter groups
    tokens: int  # of all ranks
    seconds: float
    skipped: str | None = None  # why the step was not applied
    figures: Mapping[str, float] = field(default_factory=dict)  # what the loss measured beside it, by name


@dataclass(frozen=True)
class Update:
    """What `train_step` did, the same on every rank; see `StepResult`."""

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
    max_steps: int,
    grad_clip: float,
    seed: int,
    expected_weight: float,
    state: TrainState,
    on_step: Callable[[TrainState, StepResult], None],
    should_stop: Callable[[], bool] = lambda: False,
    interrupted: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Trains what `runtime.wrap` returned until `max_steps` or told to stop. Returns how far it came.

    `batches(step)` gives this rank's micro-batches of a step, as many on every rank. `lr_at(step)` gives the learning
    rate; a parameter group with an `lr_factor` takes it times that factor. `expected_weight` is about the weight of one
    rank's batch, see `train_step`. `on_step` sees every finished step; it may evaluate, save and print. `should_stop`
    must answer the same on every rank. When `interrupted` is true on one rank, all stop after the step in which they
    learn of it. Raises `Diverged` on every rank after MAX_SKIPPED steps in a row that could not be applied.
    """
    alone = not runtime.ranks.several
    stopping = alone and interrupted()
    parallel.train()
    while state.step < max_steps and not stopping and not should_stop():
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
                f"training stopped at step {state.step}: {MAX_SKIPPED} steps in a row had a {skipped}, and none of them"
                " was applied; look at the learning rate (optimizer.lr), the warm-up (schedule.warmup_steps), the"
                " precision (--dtype float32) and the last lines of metrics.jsonl"
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
    seed: int,
    step: int,
    expected_weight: float,
    interrupted: Callable[[], bool] = lambda: False,
) -> Update:
    """One update from one global batch, of which `micro_batches` is this rank's part.

    The gradient is that of (sum of all losses) / (weight of the whole batch), however the batch is cut into ranks and
    micro-batches. The weight is known only at the end, when it has been added up over the ranks. Until then the losses
    are divided by `expected_weight`, a positive constant that is the same on all ranks: it keeps float16 gradients in
    range and has no other effect. Ranks exchange gradients once, and all sums once.
    """
    optimizer.zero_grad(set_to_none=True)
    losses: list[Loss] = []
    for micro_step, batch in enumerate(micro_batches):
        runtime.seed_dropout(seed, step, micro_step)
        with runtime.gradient_exchange(parallel, wanted=micro_step == len(micro_batches) - 1):
            with runtime.autocast():
                loss: Loss = parallel(batch)
            scaler.scale(loss.sum / expected_weight).backward()
        losses.append(replace(loss, sum=loss.sum.detach()))
    total, weight, tokens, asked, figures = _add_up(losses, micro_batches, interrupted(), runtime)
    if weight == 0:
        return Update(math.nan, 0.0, tokens, figures, "batch without a trained-on target", asked)

    scaler.unscale_(optimizer)
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    scale = expected_weight * runtime.ranks.world_size  # the exchange has averaged over the ranks
    if weight != scale:
        torch._foreach_mul_(gradients, scale / weight)
    norm = full_tensor(torch.nn.utils.get_total_norm(gradients))
    mean, grad_norm = total / weight, float(norm)

    skipped = "non-finite loss" if not math.isfinite(mean) else None
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
    return Update(mean, grad_norm, tokens, figures, skipped, asked)


def _add_up(
    losses: Sequence[Loss], micro_batches: Sequence[MicroBatch], interrupted: bool, runtime: Runtime
) -> tuple[float, float, int, bool, dict[str, float]]:
    """Over micro-batches and ranks: the sum of the losses, their weight, tokens, whether to stop, and the figures."""
    sums = torch.stack([loss.sum for loss in losses])
    weights: float | Tensor = 0.0
    for loss in losses:
        weights = weights + loss.weight
    names = list(losses[0].figures)
    parts = [float(value) for name in names for value in _sum_figure(losses, name)]
    own = [float(sums.cpu().double().sum()), float(weights)]  # the one wait for a GPU
    own += [sum(batch.n_tokens for batch in micro_batches), float(interrupted), *parts]
    total, weight, tokens, asked, *parts = runtime.ranks.sum(own)
    figures = {
        name: figure_sum / figure_weight if figure_weight else math.nan
        for name, figure_sum, figure_weight in zip(names, parts[::2], parts[1::2], strict=True)
    }
    return total, weight, int(tokens), asked > 0, figures


def _sum_figure(losses: Sequence[Loss], name: str) -> tuple[Tensor | float, Tensor | float]:
    """The sum and the weight of a figure over the micro-batches."""
    first, *others = [loss.figures[name] for loss in losses]
    for figure_sum, weight in others:
        first = (first[0] + figure_sum, first[1] + weight)
    return first
