"""Measures each trick on this device: a training step with it and without it, everything else the same.

Every variant runs in its own process, so that peak memory is measured separately. All variants take turns, round after
round, so that a machine that slows down affects all of them. The plain variant runs twice per round: the largest
difference of its two times is the noise. A trick must show a larger one, and the same sign in every round.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.data.dataset import Dataset
from glassgpt.data.loader import Loader
from glassgpt.data.shards import TokenArray
from glassgpt.errors import UserError
from glassgpt.models import Model, build_model
from glassgpt.models.attention import Attention
from glassgpt.runtime.device import Runtime, build_runtime
from glassgpt.runtime.heap import keep_freed_memory
from glassgpt.training.fit import train_step
from glassgpt.training.losses import Batch, next_token_loss, sum_token_losses
from glassgpt.training.optimizers import build_optimizer
from glassgpt.tricks.variants import TRICKS, Setup, Trick

WARM_UP = 3  # untimed steps: caches fill, memory is allocated, code is compiled
LEAST_NOISE = 0.03  # smallest noise assumed, even if the two plain measurements agree better


@dataclass(frozen=True)
class Measured:
    """Measurements of one variant. Times in seconds, memory in bytes, the loss in nats per token."""

    first_step: float
    step: float  # the fastest after the warm-up, the least disturbed by other processes
    tokens: int  # per step
    peak_memory: int
    loss: float  # of the last step

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.step


@dataclass(frozen=True)
class TrickRow:
    """One trick: the best of the rounds, and their speed ratios. `missing` says why it was not measured."""

    trick: Trick
    without: Measured | None = None
    with_it: Measured | None = None
    speeds: tuple[float, ...] = (1.0,)  # ratios of tokens per second, with / without, of every round
    memory: float = 1.0  # ratio of peak memory, with / without
    missing: str | None = None

    @property
    def speed(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.speeds)

    def faster(self, noise: float) -> bool:
        """Whether it is faster by more than the noise, and in every round."""
        return self.speed > 1 + noise and min(self.speeds) > 1

    def slower(self, noise: float) -> bool:
        """Whether it is slower by more than the noise, and in every round."""
        return self.speed < 1 - noise and max(self.speeds) < 1

    def to_dict(self, noise: float) -> dict[str, Any]:
        """The row for JSON output."""
        fields: dict[str, Any] = {"trick": self.trick.name, "idea": self.trick.idea, "missing": self.missing}
        if self.without and self.with_it:
            within = not self.faster(noise) and not self.slower(noise)
            fields |= {"speed": self.speed, "speeds": self.speeds, "within_noise": within, "memory": self.memory}
            for side, measured in (("without", self.without), ("with", self.with_it)):
                fields[side] = {**asdict(measured), "tokens_per_second": measured.tokens_per_second}
        return fields


@dataclass(frozen=True)
class Results:
    """All rows, and the noise: the largest relative difference of two measurements of the same setup in a round."""

    setup: Setup
    device: str  # in words
    n_params: int
    noise: float
    rows: list[TrickRow]


def measure_tricks(
    setup: Setup,
    dataset: Dataset,
    *,
    steps: int = 20,
    rounds: int = 3,
    tricks: Sequence[Trick] = TRICKS,
    progress: Callable[[str], None] = lambda _: None,
) -> Results:
    """Measures every trick that works on this device, in `rounds` rounds with `steps` steps per variant.

    Raises UserError if the plain variant cannot run, or for too few steps or rounds.
    """
    if steps <= WARM_UP or rounds < 1:
        raise UserError(f"{steps} steps in {rounds} rounds are too few: use at least {WARM_UP + 1} steps and 1 round")
    runtime = build_runtime(setup.device, "float32")
    missing = {trick.name: why for trick in tricks if (why := trick.needs(setup, runtime))}
    for trick in tricks:
        if trick.name not in missing and trick.with_it(setup) == trick.without(setup):
            missing[trick.name] = "it changes nothing in this setup"
    variants = {"plain": setup, "plain again": setup}
    for trick in tricks:
        if trick.name not in missing:
            changed = trick.with_it(setup)
            variants[trick.name] = changed if changed != setup else trick.without(setup)
    found: dict[str, list[Measured]] = {name: [] for name in variants}
    for number in range(rounds):
        for name, variant in variants.items():
            progress(f"round {number + 1}/{rounds}: {name}")
            outcome = run_apart(variant, [str(path) for path in dataset.train.paths], steps)
            if isinstance(outcome, Measured):
                found[name].append(outcome)
            elif name.startswith("plain"):
                raise UserError(f"a step of the recipe does not run here: {outcome}; lower --rows or the model sizes")
            else:
                missing.setdefault(name, outcome)
    n_params = sum(p.numel() for p in _on_meta(setup).parameters())
    pairs = zip(found["plain"], found["plain again"], strict=True)
    noise = max(abs(a.step / b.step - 1) for a, b in pairs)
    rows = [_row(trick, setup, found, missing.get(trick.name)) for trick in tricks]
    return Results(setup, runtime.describe(), n_params, max(noise, LEAST_NOISE), rows)


def _row(trick: Trick, setup: Setup, found: dict[str, list[Measured]], missing: str | None) -> TrickRow:
    if missing is not None:
        return TrickRow(trick, missing=missing)
    plain, changed = found["plain"], found[trick.name]
    sides = (plain, changed) if trick.with_it(setup) != setup else (changed, plain)
    speeds = tuple(b.tokens_per_second / a.tokens_per_second for a, b in zip(*sides, strict=True))
    without, with_it = map(_best, sides)
    return TrickRow(trick, without, with_it, speeds, memory=with_it.peak_memory / without.peak_memory)


def _best(measured: Sequence[Measured]) -> Measured:
    """The smallest time and the smallest memory of the measurements: disturbances only ever add to them."""
    fastest = min(measured, key=lambda each: each.step)
    return replace(fastest, peak_memory=min(each.peak_memory for each in measured))


def run_apart(setup: Setup, shards: Sequence[str], steps: int) -> Measured | str:
    """Measures one variant in its own process; returns the reason as text if it fails."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit this process's peak memory
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(setup, shards, steps, sender), daemon=True)
    process.start()
    sender.close()
    try:
        outcome: Measured | str = receiver.recv()
    except EOFError:
        process.join()
        outcome = f"its process ended with exit code {process.exitcode}, probably out of memory"
    process.join()
    return outcome


def _report(setup: Setup, shards: Sequence[str], steps: int, sender: Any) -> None:
    keep_freed_memory()  # as `glassgpt train` does
    try:
        sender.send(measure(setup, TokenArray([Path(shard) for shard in shards]), steps))
    except (
        RuntimeError,
        MemoryError,
        UserError,
    ) as error:  # or no kernel for this precision
        sender.send(str(error).strip().splitlines()[0])


def measure(setup: Setup, tokens: TokenArray, steps: int) -> Measured:
    """Trains for `steps` steps with this setup and returns the measurements."""
    runtime = build_runtime(
        setup.device, setup.precision, setup.compile, activation_checkpointing=setup.activation_checkpointing
    )
    torch.manual_seed(setup.seed)
    model = build_model(setup.architecture, setup.model).to(runtime.device)
    if not setup.flash:
        _use_unfused_attention(model)
    summed = runtime.compiled(sum_token_losses)
    loss_function = partial(next_token_loss, chunk=setup.chunk, sum_losses=summed)
    parallel = runtime.wrap(model, loss_function, in_parts=setup.chunk is not None)
    optimizer = build_optimizer(model, setup.optimizer)
    if not setup.fused:
        for group in optimizer.param_groups:  # torch's defaults: a loop over tensors, on a GPU foreach
            group["fused"], group["foreach"] = False, runtime.device.type == "cuda"
    scaler = runtime.build_scaler()
    loader = Loader(tokens, setup.model.block_size, setup.rows, setup.seed)
    seconds = []
    for step in range(steps):
        _synchronize(runtime)
        started = time.perf_counter()
        batches = [_batch(loader, step, number, setup, runtime) for number in range(setup.passes)]
        with runtime.compiling():
            update = train_step(
                parallel, optimizer, scaler, batches, runtime,
                grad_clip=1.0, seed=setup.seed, step=step, expected_weight=setup.rows * setup.model.block_size,
            )  # fmt: skip
        _synchronize(runtime)
        seconds.append(time.perf_counter() - started)
    return Measured(
        first_step=seconds[0],
        step=min(seconds[WARM_UP:]),
        tokens=setup.rows * setup.model.block_size,
        peak_memory=peak_memory(runtime),
        loss=update.loss,
    )


def _batch(loader: Loader, step: int, number: int, setup: Setup, runtime: Runtime) -> Batch:
    start, stop = (setup.rows * part // setup.passes for part in (number, number + 1))
    inputs, targets = loader.rows(step, start, stop)
    return Batch(inputs.to(runtime.device), targets.to(runtime.device))


def _use_unfused_attention(model: nn.Module) -> None:
    """Sets a hook that does nothing: attention with a hook runs unfused and stores its full pattern."""

    def ignore(name: str, value: Tensor) -> None: ...

    for module in model.modules():
        if isinstance(module, Attention):
            module.hook = ignore


def _synchronize(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)


def _on_meta(setup: Setup) -> Model:
    with torch.device("meta"):
        return build_model(setup.architecture, setup.model)


def peak_memory(runtime: Runtime) -> int:
    """Peak memory in bytes: on a GPU, torch's peak allocation; on a CPU, the peak size of this process with Python."""
    if runtime.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(runtime.device))
    import resource  # not on Windows: the benchmark fails there

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
