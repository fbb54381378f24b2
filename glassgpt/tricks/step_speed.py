"""Measures a whole training step beside that of `transformers` and of nanoGPT, and beside the rate of matrix products.

All contenders have the same sizes, the same batches, and AdamW with the same settings. They take turns, round after
round, so that a machine that slows down affects all of them. The rate of matrix products is measured in every round
too. A step that consisted of nothing else would reach it.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassgpt.costs.flops import estimate_flops_per_token
from glassgpt.errors import UserError, shown
from glassgpt.interop.nanogpt import build_nanogpt
from glassgpt.interop.peer import Peer, lacks_peer
from glassgpt.models import Model, ModelConfig, build_model
from glassgpt.models.gpt2 import GPT2Config
from glassgpt.models.sizes import draws_dropout
from glassgpt.runtime.device import Runtime, build_runtime, cpu_has_bfloat16, describe_machine
from glassgpt.training.fit import train_step
from glassgpt.training.losses import Batch, next_token_loss, sum_token_losses
from glassgpt.training.optimizers import OptimizerConfig, build_optimizer

OURS, TRANSFORMERS, NANOGPT = "glassgpt", "transformers", "nanoGPT"
MOST = 1024  # rows, steps and rounds: what can be measured in a reasonable time
Step = Callable[[Sequence[Batch]], float]  # trains on the micro-batches of a step and returns its loss
CLIP = 1.0  # largest norm of the gradient, as in the recipes of all three
SKEW = 4  # of the drawn ids: low ids are frequent, as in a text, so that the loss falls
SIDES = {"cpu": 2048, "cuda": 8192, "mps": 4096}  # of the square matrices whose product is the roof


@dataclass(frozen=True)
class StepRow:
    """What one contender needs for a step: the medians of the rounds, and the rounds themselves."""

    contender: str
    precision: str
    seconds: float
    tokens_per_second: float
    share_of_matrix_rate: float  # FLOP/s of the step over those of a matrix product in this precision
    loss: float  # of the last step, in nats per token
    rounds: tuple[float, ...]  # seconds of a step
    mfu: float | None = None  # FLOP/s of the step over the peak in the data sheet of a GPU
    peak_memory: int | None = None  # bytes of a GPU


@dataclass(frozen=True)
class StepSpeed:
    """The result of `measure_step`. A ratio is the time of a peer over ours in the same round, in the median round."""

    machine: dict[str, Any]
    parameters: int
    batch_rows: int  # of a micro-batch
    passes: int  # micro-batches of a step
    block_size: int
    matrix_rates: dict[str, float]  # FLOP/s by precision: the best of the rounds
    rows: tuple[StepRow, ...]
    times_transformers: float | None
    times_nanogpt: float | None
    notes: tuple[str, ...]  # what was not measured, and why

    def to_dict(self) -> dict[str, Any]:
        """For JSON output."""
        return asdict(self)


@dataclass
class _Contender:
    name: str
    runtime: Runtime
    step: Step
    seconds: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    loss: float = float("nan")
    peak_memory: int = 0


def measure_step(
    architecture: str,
    sizes: ModelConfig,
    optimizer: OptimizerConfig,
    *,
    rows: int = 2,
    passes: int = 1,
    steps: int = 3,
    rounds: int = 3,
    device: str = "auto",
    precisions: Sequence[str] = (),
    compile: bool = False,
    peer: bool = True,
    nanogpt: Path | None = None,
) -> StepSpeed:
    """Trains every contender for `rounds` times `steps` steps, after a round that warms up.

    A step has `passes` micro-batches of `rows` rows. Our step is measured in each of `precisions`, by default in all
    that this device is fast in, and the peers in the first one. `nanogpt` is a checkout of karpathy/nanoGPT. Raises
    UserError for a number out of range, and for a checkout or a precision that does not exist.
    """
    for name, value in {"rows": rows, "passes": passes, "steps": steps, "rounds": rounds}.items():
        if not 1 <= value <= MOST:
            raise UserError(f"--{name} {shown(value)} is out of range: it must be at least 1 and at most {MOST}")
    place = build_runtime(device).device
    built = [build_runtime(device, name, compile) for name in precisions or _fast_precisions(place)]
    first, runtimes = built[0], {each.precision: each for each in built}  # two names may mean one, such as auto
    contenders = [
        _Contender(OURS, each, build_ours(architecture, sizes, optimizer, each)) for each in runtimes.values()
    ]
    model = _build(architecture, sizes)
    notes = [note for each in runtimes.values() for note in each.notes]
    lacking = lacks_peer(model) if peer else "transformers was left out"
    if lacking is None:
        contenders.append(_Contender(TRANSFORMERS, first, _build_transformers(model, optimizer, first)))
    else:
        notes.append(lacking)
    if nanogpt is not None:
        if not isinstance(sizes, GPT2Config):
            raise UserError(f"--nanogpt: nanoGPT has no model of the architecture {architecture}")
        contenders.append(_Contender(NANOGPT, first, build_nanogpt_step(nanogpt, sizes, optimizer, first)))
    batches = [draw_batches(sizes, rows, passes, place, seed=number) for number in range(steps)]
    tokens = rows * passes * sizes.block_size
    flops = estimate_flops_per_token(model) * tokens
    rates: dict[str, list[float]] = {name: [] for name in runtimes}
    for number in range(rounds + 1):
        for name, runtime in runtimes.items():
            rates[name].append(measure_matrix_rate(runtime, SIDES[place.type]))
        for contender in contenders:
            _train(contender, batches)
            rate = rates[contender.runtime.precision][-1]
            if number:
                contender.shares.append(flops / contender.seconds[-1] / rate)
            else:
                contender.seconds.clear()
    return StepSpeed(
        machine=describe_machine(first),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        batch_rows=rows,
        passes=passes,
        block_size=sizes.block_size,
        matrix_rates={name: max(each) for name, each in rates.items()},
        rows=tuple(_row(each, tokens, flops) for each in contenders),
        times_transformers=_times(contenders, TRANSFORMERS),
        times_nanogpt=_times(contenders, NANOGPT),
        notes=tuple(notes),
    )


def build_ours(architecture: str, sizes: ModelConfig, config: OptimizerConfig, runtime: Runtime) -> Step:
    """The step that `glassgpt train` runs."""
    model = _build(architecture, sizes).to(runtime.device)
    summed = runtime.compiled(sum_token_losses)
    parallel = runtime.wrap(model, lambda model, batch: next_token_loss(model, batch, sum_losses=summed)).train()
    optimizer, scaler = build_optimizer(model, config), runtime.build_scaler()
    seed = 0 if draws_dropout(sizes) else None

    def step(batches: Sequence[Batch]) -> float:
        with runtime.compiling():
            return train_step(
                parallel, optimizer, scaler, batches, runtime,
                grad_clip=CLIP, seed=seed, step=0, expected_weight=sum(batch.n_tokens for batch in batches),
            ).loss  # fmt: skip

    return step


def build_nanogpt_step(checkout: Path, sizes: GPT2Config, config: OptimizerConfig, runtime: Runtime) -> Step:
    """The step of nanoGPT's train.py, on its own model. Raises UserError if `checkout` has no model.py."""
    torch.manual_seed(0)
    model = build_nanogpt(checkout, sizes).to(runtime.device).train()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its numbers of parameters
        betas = (config.beta1, config.beta2)
        optimizer = model.configure_optimizers(config.weight_decay, config.lr, betas, runtime.device.type)
    return _plain_step(model, optimizer, lambda called, batch: called(batch.inputs, batch.targets)[1], runtime)


def _build_transformers(model: Model, config: OptimizerConfig, runtime: Runtime) -> Step:
    """The step of its model as its own Trainer makes it, with torch's fused AdamW."""
    theirs = Peer(model).model.to(runtime.device).train()
    optimizer = torch.optim.AdamW(
        theirs.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps,
        weight_decay=config.weight_decay, fused=True,
    )  # fmt: skip

    def loss_of(called: Any, batch: Batch) -> Tensor:
        # Its model shifts the labels itself. These are shifted, and it takes them with this name as they are.
        loss: Tensor = called(batch.inputs, labels=batch.inputs, shift_labels=batch.targets, use_cache=False).loss
        return loss

    return _plain_step(theirs, optimizer, loss_of, runtime)


def _plain_step(
    model: Any, optimizer: torch.optim.Optimizer, loss_of: Callable[[Any, Batch], Tensor], runtime: Runtime
) -> Step:
    """Forward, backward, clipping and update, in the usual order."""
    called: Any = torch.compile(model) if runtime.compile else model
    scaler = runtime.build_scaler()

    def step(batches: Sequence[Batch]) -> float:
        for batch in batches:
            with runtime.autocast():
                loss = loss_of(called, batch)
            scaler.scale(loss / len(batches)).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def measure_matrix_rate(runtime: Runtime, side: int) -> float:
    """FLOP/s of the product of two square matrices in the precision of a run: the best of some."""
    dtype = runtime.product_dtype
    a, b = (torch.randn(side, side, device=runtime.device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        synchronize(runtime.device)
        began = time.perf_counter()
        a @ b
        synchronize(runtime.device)
        best = min(best, time.perf_counter() - began)
    return 2.0 * side**3 / best


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _train(contender: _Contender, steps: Sequence[Sequence[Batch]]) -> None:
    device = contender.runtime.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    synchronize(device)
    began = time.perf_counter()
    for batches in steps:
        contender.loss = contender.step(batches)
    synchronize(device)
    contender.seconds.append((time.perf_counter() - began) / len(steps))
    if device.type == "cuda":
        contender.peak_memory = torch.cuda.max_memory_allocated(device)


def _row(contender: _Contender, tokens: int, flops: float) -> StepRow:
    seconds, peak = statistics.median(contender.seconds), contender.runtime.peak_flops
    return StepRow(
        contender=contender.name,
        precision=contender.runtime.precision,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        share_of_matrix_rate=statistics.median(contender.shares),
        loss=contender.loss,
        rounds=tuple(contender.seconds),
        mfu=None if peak is None else flops / seconds / peak,
        peak_memory=contender.peak_memory or None,
    )


def _times(contenders: Sequence[_Contender], peer: str) -> float | None:
    theirs = next((each for each in contenders if each.name == peer), None)
    if theirs is None:
        return None
    return statistics.median(their / our for our, their in zip(contenders[0].seconds, theirs.seconds, strict=True))


def _fast_precisions(device: torch.device) -> tuple[str, ...]:
    if device.type == "cpu":
        return ("float32", "bfloat16") if cpu_has_bfloat16() else ("float32",)
    return (build_runtime(device.type).precision,)


def _build(architecture: str, sizes: ModelConfig) -> Model:
    torch.manual_seed(0)
    return build_model(architecture, sizes)


def draw_batches(sizes: ModelConfig, rows: int, count: int, device: torch.device, *, seed: int = 0) -> list[Batch]:
    """`count` micro-batches of random ids, some of them much more frequent than others."""
    draw = torch.Generator().manual_seed(seed)
    drawn = [torch.rand(rows, sizes.block_size + 1, generator=draw) ** SKEW for _ in range(count)]
    windows = [(each * sizes.vocab_size).long().to(device) for each in drawn]
    return [Batch(window[:, :-1].contiguous(), window[:, 1:].contiguous()) for window in windows]
