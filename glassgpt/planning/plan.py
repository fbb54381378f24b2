"""Plans a run before it starts: parameters, memory, time and cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from glassgpt.costs.flops import count_active_parameters, count_parameters, estimate_flops_per_token
from glassgpt.costs.hardware import GIB, Hardware, find_hardware, local_hardware
from glassgpt.costs.memory import (
    StepMemory,
    count_parameters_by_part,
    largest_micro_batch,
)
from glassgpt.costs.speed import measure_tokens_per_second
from glassgpt.errors import UserError
from glassgpt.models import find_architecture, is_tied
from glassgpt.runs.config import (
    RunConfig,
    apply_overrides,
    check_ranks,
    load_recipe,
    parse_run_config,
    quiet,
    with_vocab_size,
)
from glassgpt.runs.micro_batch import estimate_memory
from glassgpt.runtime.device import build_runtime, choose_parallel
from glassgpt.runtime.distributed import Ranks
from glassgpt.tokenizers import TokenizerConfig, open_tokenizer

UTILISATION = 0.4  # fraction of the peak; table 3 of Chowdhery et al. 2022 has 0.21 (GPT-3), 0.33, 0.30 and 0.46 (PaLM)
MAX_DEVICES = 1 << 20
SHAKESPEARE_CHARACTERS = 65
PUBLISHED_VOCABULARIES = {"gpt2": 50257, "cl100k_base": 100277, "o200k_base": 200019}  # special tokens included
CHINCHILLA_RATIO = 20  # compute-optimal number of tokens per parameter (Hoffmann et al. 2022)


@dataclass(frozen=True)
class MicroBatch:
    """One row of the memory table: bytes by part at the memory peak of a step."""

    rows: int
    parts: dict[str, int]
    fits: bool

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Plan:
    """What is known about a run before it starts, in bytes, seconds and FLOPs. An unknown time is None."""

    recipe: str
    config: RunConfig
    tied: bool
    parameters: dict[str, int]
    n_parameters: int
    n_active: int  # without the experts that a token does not choose
    flops_per_token: float
    hardware: Hardware
    devices: int  # one rank on each
    parallel: str  # none, ddp or fsdp
    precision: str
    activations: dict[str, int]  # bytes of one row, by part of the model
    micro_batches: list[MicroBatch]  # memory of each device
    largest_micro_batch: int | None
    own_micro_batch: int | None  # the recipe's, or the largest if it is auto
    utilisation: float
    seconds: float | None  # on the named devices, from their peak FLOP/s and the utilisation
    measured: Measurement | None  # on this machine's device
    price_per_hour: float | None  # of one device
    notes: list[str]

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.config.training.max_steps * self.config.training.batch_tokens

    @property
    def flops(self) -> float:
        """FLOPs of the whole run."""
        return self.flops_per_token * self.tokens

    @property
    def rank_rows(self) -> int:
        """Rows of a step on each device."""
        return self.config.batch_rows // self.devices

    @property
    def hours(self) -> float | None:
        """Hours on the named devices, estimated or, if not possible, measured."""
        seconds = self.seconds
        if seconds is None and self.measured is not None and self.measured.device == self.hardware.name:
            seconds = self.measured.seconds
        return None if seconds is None else seconds / 3600

    @property
    def cost(self) -> float | None:
        """The price of `hours` on all devices."""
        if self.price_per_hour is None or self.hours is None:
            return None
        return self.price_per_hour * self.hours * self.devices

    def to_dict(self) -> dict[str, Any]:
        """The plan as one JSON object."""
        training = self.config.training
        return {
            "recipe": self.recipe,
            "architecture": self.config.architecture,
            "model": dataclasses.asdict(self.config.model),  # type: ignore[call-overload]
            "parameters": {
                "total": self.n_parameters,
                "active": self.n_active,
                "head_tied": self.tied,
                **self.parameters,
            },
            "flops_per_token": self.flops_per_token,
            "steps": training.max_steps,
            "batch_tokens": training.batch_tokens,
            "tokens": self.tokens,
            "flops": self.flops,
            "tokens_per_parameter": self.tokens / self.n_parameters,
            "device": self.hardware.name,
            "devices": self.devices,
            "parallel": self.parallel,
            "precision": self.precision,
            "device_memory": self.hardware.memory,
            "usable_memory": self.hardware.usable,
            "activations_per_row": self.activations,
            "memory": [
                {"micro_batch": row.rows, "total": row.total, "fits": row.fits, **row.parts}
                for row in self.micro_batches
            ],
            "largest_micro_batch": self.largest_micro_batch,
            "micro_batch": self.own_micro_batch,
            "peak_flops": self.hardware.peak_flops,
            "utilisation": self.utilisation,
            "seconds": self.seconds,
            "measured": None if self.measured is None else dataclasses.asdict(self.measured),
            "price_per_hour": self.price_per_hour,
            "cost": self.cost,
            "notes": self.notes,
        }


@dataclass(frozen=True)
class Measurement:
    """Measured speed on this machine's device, and the seconds of the whole run at that speed."""

    device: str
    micro_batch: int
    tokens_per_second: float
    seconds: float


def make_plan(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    device: str = "this",
    devices: int = 1,
    parallel: str | None = None,
    utilisation: float = UTILISATION,
    price_per_hour: float | None = None,
    seconds: float = 10.0,
    note: Callable[[str], None] = quiet,
) -> Plan:
    """Plans a recipe for a device, or for several of them with one rank on each. Memory is that of each device.

    `parallel` is "ddp" or "fsdp"; None: the recipe's. `seconds` is how long to measure on this machine; 0 turns that
    off. Only one device is measured. Raises UserError for an unknown recipe, setting or device, for a number out of
    range, and for a batch that the devices cannot share evenly.
    """
    if not 0.0 < utilisation <= 1.0:
        raise UserError(f"utilisation {utilisation} is out of range: it must be above 0 and at most 1")
    if price_per_hour is not None and not 0.0 < price_per_hour < math.inf:
        raise UserError(f"price-per-hour {price_per_hour} is out of range: it must be above 0")
    if not 1 <= devices <= MAX_DEVICES:
        raise UserError(f"devices {devices} is out of range: it must be from 1 to {MAX_DEVICES:,}")
    config, notes = planned_config(recipe, overrides, note)
    check_ranks(config, Ranks(world_size=devices))
    hardware = find_hardware(device)
    precision = planned_precision(config, hardware)
    parallel = choose_parallel(parallel or config.machine.parallel, precision, devices)
    with torch.device("meta"):
        model = find_architecture(config.architecture).model(config.model)
    flops = estimate_flops_per_token(model)
    memory = estimate_memory(config, hardware, precision=precision, parallel=parallel, ranks=devices)
    rows = config.batch_rows // devices
    largest = largest_micro_batch(memory, rows, hardware.usable)
    own = largest if config.training.micro_batch == "auto" else min(config.rows_of_pass(rows), rows)
    tokens = config.training.max_steps * config.training.batch_tokens
    if find_architecture(config.architecture).kind == "encoder-decoder":
        notes.append("pairs are counted as if each filled its row: shorter ones take less time and memory")
    estimated = None
    if hardware.peak_flops is not None and precision in ("bfloat16", "float16"):
        estimated = flops * tokens / (hardware.peak_flops * utilisation * devices)
        if devices > 1:
            notes.append("the time that devices wait for each other's gradients and weights is not counted")
    measured = _measure(config, tokens, seconds, notes, note) if seconds and devices == 1 else None
    return Plan(
        recipe=recipe,
        config=config,
        tied=is_tied(model),
        parameters=count_parameters_by_part(model),
        n_parameters=count_parameters(model),
        n_active=count_active_parameters(model),
        flops_per_token=flops,
        hardware=hardware,
        devices=devices,
        parallel=parallel,
        precision=precision,
        activations=memory.activations,
        micro_batches=_memory_table(memory, rows, own, hardware.usable),
        largest_micro_batch=largest,
        own_micro_batch=own,
        utilisation=utilisation,
        seconds=estimated,
        measured=measured,
        price_per_hour=price_per_hour,
        notes=notes,
    )


def planned_config(
    recipe: str, overrides: Sequence[str] = (), note: Callable[[str], None] = quiet
) -> tuple[RunConfig, list[str]]:
    """The config of a recipe, and notes on assumptions."""
    sections = apply_overrides(load_recipe(recipe, note), overrides, note)
    n_ids, assumed = _count_ids(parse_run_config(sections).tokenizer)
    sections, remark = with_vocab_size(sections, n_ids)
    return parse_run_config(sections), [line for line in (assumed, remark) if line]


def _count_ids(config: TokenizerConfig) -> tuple[int, str | None]:
    """The number of ids of the tokenizer, and a note if it depends on the text and is assumed."""
    if config.name == "char":
        count = SHAKESPEARE_CHARACTERS + len(config.special_tokens)
        return count, f"the text decides the vocabulary: {count} characters are assumed, as in Tiny Shakespeare"
    if config.name == "bpe":
        return config.vocab_size, None
    if config.name in PUBLISHED_VOCABULARIES:
        return PUBLISHED_VOCABULARIES[config.name], None
    return open_tokenizer(config.name).vocab_size, None


def planned_precision(config: RunConfig, hardware: Hardware) -> str:
    """The precision that the run computes in on that device."""
    dtype = config.machine.dtype
    if dtype == "auto":
        return hardware.precision
    return "float32" if dtype == "tf32" and hardware.kind != "cuda" else dtype


def _memory_table(memory: StepMemory, rank_rows: int, own: int | None, usable: int) -> list[MicroBatch]:
    """1, 2, 4, … rows up to all rows of a rank, and the run's own; only the first of those that do not fit."""
    sizes = sorted({2**n for n in range(rank_rows.bit_length())} | {own or 1})
    table: list[MicroBatch] = []
    for rows in sizes:
        parts = memory.at_peak(rows, accumulates=rows < rank_rows)
        fits = sum(parts.values()) <= usable
        if fits or rows == own or not table or table[-1].fits:
            table.append(MicroBatch(rows, parts, fits))
    return table


def _measure(
    config: RunConfig, tokens: int, seconds: float, notes: list[str], note: Callable[[str], None]
) -> Measurement | None:
    """Measures the run's step on this machine's device. If the model does not fit, adds a note and returns None."""
    machine = config.machine
    device = "auto" if machine.device.startswith("cuda") else machine.device
    runtime = build_runtime(device, machine.dtype, machine.compile)
    if runtime.compile and runtime.device.type == "cpu":  # compiling a large model takes minutes there
        runtime = dataclasses.replace(runtime, compile=False)
        notes.append("measured without torch.compile, which the recipe uses")
    here = local_hardware(runtime)
    memory = estimate_memory(config, here, precision=runtime.precision)
    largest = largest_micro_batch(memory, config.batch_rows, here.usable)
    if largest is None:
        need = memory.peak(1, accumulates=config.batch_rows > 1)
        notes.append(
            f"not measured on this device: a single row needs {need / GIB:,.1f} GiB, and {here.name} has"
            f" {here.usable / GIB:,.1f} GiB usable"
        )
        return None
    rows = largest if config.training.micro_batch == "auto" else min(config.rows_of_pass(config.batch_rows), largest)
    note(f"measuring steps on {here.name} for about {seconds:.0f} seconds")
    model = find_architecture(config.architecture).model(config.model).to(runtime.device)
    rate, rows = measure_tokens_per_second(model, config.optimizer, runtime, micro_batch=rows, seconds=seconds)
    return Measurement(here.name, rows, rate, tokens / rate)
