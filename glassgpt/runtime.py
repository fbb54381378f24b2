"""Where and how a model runs: device, precision, compilation, ranks, in one value."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from glassgpt.errors import UserError, unknown

PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16")

# Peak dense bfloat16/float16 rate in FLOP/s by a word of the name torch reports (NVIDIA data sheets, without sparsity).
PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "L40S": 362e12,
    "V100": 125e12,
    "T4": 65e12,
}


@dataclass(frozen=True)
class Runtime:
    """The device, the precision, whether to compile, and this process's place among the ranks.

    `notes` says, one line each, what was asked for and could not be had.
    """

    device: torch.device
    precision: str  # one of PRECISIONS, never "auto"
    compile: bool = False
    rank: int = 0
    world_size: int = 1
    notes: tuple[str, ...] = ()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which a forward pass runs in the chosen precision; weights stay float32."""
        if self.precision in ("float32", "tf32"):
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))

    def build_scaler(self) -> torch.amp.GradScaler:
        """Loss scaling for float16, whose small gradients would vanish (Micikevicius et al. 2018); else idle."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to call in training: `model` itself, or a compiled wrapper that shares its weights."""
        if not self.compile:
            return model
        return cast(nn.Module, torch.compile(model))

    def seed_dropout(self, seed: int, step: int, micro_step: int) -> None:
        """Sets torch's generator from (seed, step, micro-step, rank): dropout never depends on what ran before."""
        torch.manual_seed(_mix(seed, step, micro_step, self.rank))

    @property
    def peak_flops(self) -> float | None:
        """FLOP/s that the device could reach in its matrix units at this precision, where it is known."""
        if self.device.type != "cuda" or self.precision not in ("bfloat16", "float16"):
            return None
        name = torch.cuda.get_device_name(self.device)
        return next((peak for part, peak in PEAK_FLOPS.items() if re.search(rf"\b{part}\b", name)), None)

    def describe(self) -> str:
        """One phrase: device, precision, compilation, ranks."""
        parts = [describe_device(self.device), self.precision, "compiled" if self.compile else "not compiled"]
        if self.world_size > 1:
            parts.append(f"{self.world_size} ranks")
        return ", ".join(parts)


def build_runtime(device: str = "auto", precision: str = "auto", compile: bool = False) -> Runtime:
    """Resolves the names a user gives. Raises UserError for a device or precision that is unknown or not here."""
    place = _find_device(device)
    if precision not in PRECISIONS:
        raise unknown("dtype", precision, PRECISIONS)
    notes: list[str] = []
    precision = _choose_precision(precision, place, notes)
    if compile and place.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        compile = False
        notes.append("no C++ compiler (g++ or clang++) is on the PATH: the model runs uncompiled")
    if place.type == "cpu":
        _keep_freed_memory()
    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
    return Runtime(place, precision, compile, notes=tuple(notes))


def _find_device(name: str) -> torch.device:
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and not (index.isdigit() and kind == "cuda")):
        raise unknown("device", name, ["auto", "cpu", "cuda", "cuda:0", "mps"])
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"device '{name}' is not available: torch {torch.__version__} sees no CUDA GPU; use --device cpu"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not available: torch sees no Apple GPU; use --device cpu")
    if index and int(index) >= torch.cuda.device_count():
        raise UserError(f"device '{name}' is not available: torch sees {torch.cuda.device_count()} CUDA GPU(s)")
    return torch.device(f"{kind}:{index}" if index else kind)


def _choose_precision(name: str, device: torch.device, notes: list[str]) -> str:
    if name == "auto":
        if device.type != "cuda":
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if name == "tf32" and device.type != "cuda":
        notes.append(f"tf32 exists on CUDA GPUs only: {device.type} runs in float32")
        return "float32"
    if name == "bfloat16" and device.type == "cpu" and not _cpu_has_bfloat16():
        notes.append("this processor emulates bfloat16 products, tens of times slower than float32")
    if name == "float16" and device.type == "cpu":
        notes.append("float16 on a CPU is slow and meant for checking; float32 is faster")
    return name


def _keep_freed_memory() -> None:
    """Lets this process keep the memory that it frees, where the C library is glibc.

    A training step frees megabytes and takes them again at the next one. By default glibc hands them back to the
    system in between, and each page that comes anew costs a fault.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: give nothing back
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, at its largest: no mapping of its own for a block below 32 MB


@contextlib.contextmanager
def one_thread_for_small(model: nn.Module) -> Iterator[None]:
    """Runs a pass of few rows on one CPU thread, where the model has fewer than 10M parameters.

    Such a pass is over before a second thread has woken up, and on a busy machine the first waits for it.
    """
    threads = torch.get_num_threads()
    if threads == 1 or sum(parameter.numel() for parameter in model.parameters()) >= 10_000_000:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _mix(*parts: int) -> int:
    """Folds integers into one 63-bit seed; SplitMix64's finaliser (Steele et al. 2014) spreads neighbours apart."""
    state = 0
    for part in parts:
        state = (state ^ (part & 0xFFFFFFFFFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def describe_device(device: torch.device) -> str:
    """A GPU's name, or how many threads the processor lends."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    n_threads = torch.get_num_threads()
    return f"cpu, {n_threads} thread{'s' * (n_threads > 1)}" if device.type == "cpu" else device.type


def describe_machine(runtime: Runtime) -> dict[str, Any]:
    """What a reader of a run needs to know about where it was made."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": platform.platform(),
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": describe_device(runtime.device),
        "precision": runtime.precision,
        "compile": runtime.compile,
        "world_size": runtime.world_size,
    }


def _processor_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
