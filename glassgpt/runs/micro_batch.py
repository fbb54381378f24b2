"""Chooses the micro-batch that fits into memory before a run, and advises one after an out-of-memory error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from glassgpt.costs.hardware import CPU_FLOOR, CPU_KERNELS, GIB, Hardware, local_hardware, resident_bytes
from glassgpt.costs.memory import StepMemory, estimate_step_memory, largest_micro_batch
from glassgpt.errors import UserError, is_out_of_memory, option
from glassgpt.runs.config import RunConfig
from glassgpt.runtime.device import Runtime
from glassgpt.runtime.parallel import weights_later

FROZEN_BYTES = 4  # of a parameter in float32
TRAINED_BYTES = 16  # with its gradient and AdamW's two moments


def estimate_memory(
    config: RunConfig, hardware: Hardware, *, precision: str, parallel: str = "none", ranks: int = 1
) -> StepMemory:
    """Estimates the memory of a training step on a device, or on each of several `ranks`, including the framework."""
    # Before the estimate: it imports torch's compiler, which a training process does without.
    floor = resident_bytes() + CPU_KERNELS if hardware.floor is None else hardware.floor
    memory = estimate_step_memory(
        config.architecture, config.model, config.optimizer,
        precision=precision, device_type=hardware.kind,
        activation_checkpointing=config.machine.activation_checkpointing, loss_chunk=config.training.loss_chunk,
        parallel=parallel, ranks=ranks,
    )  # fmt: skip
    return memory.with_floor(floor, on_heap=hardware.kind == "cpu")


def check_fits(build: Callable[[], nn.Module], runtime: Runtime) -> None:
    """Raises UserError if the device lacks the memory for the weights, gradients and optimizer state of a model.

    It is asked before anything is allocated, because a system may promise more memory than it has: then no allocation
    fails, and the process is killed later. `build` makes the model, which gets no memory here.
    """
    with weights_later():
        parameters = list(build().parameters())
    total = sum(p.numel() * (TRAINED_BYTES if p.requires_grad else FROZEN_BYTES) for p in parameters)
    here, need = local_hardware(runtime), total // (runtime.ranks.world_size if runtime.parallel == "fsdp" else 1)
    if need > here.memory:
        count = sum(p.numel() for p in parameters)
        raise UserError(
            f"the model does not fit on {here.name}: {count:,} parameters need at least {need / GIB:,.1f} GiB for"
            f" weights, gradients and optimizer state, and {here.memory / GIB:.1f} GiB are free; lower model.n_layer,"
            " model.n_embd or model.vocab_size"
        )


def with_micro_batch(config: RunConfig, runtime: Runtime, note: Callable[[str], None]) -> RunConfig:
    """Replaces `training.micro_batch = auto` by as many rows of a rank as fit. Raises UserError if none does."""
    if config.training.micro_batch != "auto":
        return config
    here, rows = local_hardware(runtime), config.batch_rows // runtime.ranks.world_size
    memory = _estimate_here(config, here, runtime)
    micro_batch = largest_micro_batch(memory, rows, here.usable)
    if micro_batch is None:
        raise UserError(_too_large(memory, here, rows, runtime))
    need = memory.peak(micro_batch, accumulates=micro_batch < rows)
    note(f"training.micro_batch = {micro_batch}: by the estimate {need / GIB:.1f} of {here.usable / GIB:.1f} GiB")
    return dataclasses.replace(config, training=dataclasses.replace(config.training, micro_batch=micro_batch))


def _estimate_here(config: RunConfig, here: Hardware, runtime: Runtime) -> StepMemory:
    return estimate_memory(
        config, here, precision=runtime.precision, parallel=runtime.parallel, ranks=runtime.ranks.world_size
    )


@contextmanager
def out_of_memory_advice(config: RunConfig, runtime: Runtime, folder: Path | None = None) -> Iterator[None]:
    """Converts an out-of-memory error into a UserError that names a micro-batch that would fit.

    `folder` is that of a run, which can go on with it from its last checkpoint.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(_advice(config, runtime, folder)) from None


def _advice(config: RunConfig, runtime: Runtime, folder: Path | None) -> str:
    rows = config.batch_rows // runtime.ranks.world_size
    tried, here = config.rows_of_pass(rows), local_hardware(runtime)
    memory = _estimate_here(config, here, runtime)
    memory = memory.with_floor(min(memory.floor, CPU_FLOOR), on_heap=memory.on_heap)  # not what the failed step holds
    fitting = largest_micro_batch(memory, rows, here.usable, most=tried - 1)
    if fitting is None:
        return _too_large(memory, here, rows, runtime)
    again, run = ("start again", {}) if folder is None else ("go on", {"run": str(folder), "resume": True})
    how = option(**run, **{"training.micro_batch": fitting})
    need, failed = (memory.peak(n, accumulates=n < rows) / GIB for n in (fitting, tried))
    return (
        f"out of memory on {here.name}: a micro-batch of {tried} rows needs about {failed:.1f} GiB; {again}"
        f" with {how}: about {need:.1f} of {here.usable / GIB:.1f} GiB for the same batch"
    )


def _too_large(memory: StepMemory, here: Hardware, rows: int, runtime: Runtime) -> str:
    need = memory.peak(1, accumulates=rows > 1)
    way = {"none": "", "ddp": "--parallel fsdp, ", "fsdp": "more ranks, "}[runtime.parallel]
    each = f" on each of {runtime.ranks.world_size} ranks" if runtime.ranks.several else ""
    return (
        f"this model does not fit on {here.name}: one row needs about {need / GIB:.1f} GiB{each}, but only"
        f" {here.usable / GIB:.1f} GiB are usable; try {way}--set machine.activation_checkpointing=true, or lower"
        " model.n_layer, model.n_embd or model.block_size"
    )
