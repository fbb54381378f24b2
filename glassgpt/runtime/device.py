"""Device, precision, compilation and ranks of a run, in one `Runtime` value."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from glassgpt.errors import UserError, unknown
from glassgpt.runtime.distributed import ALONE, Ranks
from glassgpt.runtime.parallel import (
    ModelWithLoss,
    add_lookups_in_place,
    checkpoint_activations,
    compile_blocks,
    gathered_in,
    move,
    replicate,
    shard,
)
from glassgpt.runtime.peak_flops import find_peak_flops
from glassgpt.runtime.splitmix import mix

PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16")
PARALLEL = ("auto", "none", "ddp", "fsdp")


@dataclass(frozen=True)
class MachineConfig:
    """Where and how a run computes. Raises UserError for an unknown name."""

    device: str = "auto"  # auto, cpu, cuda, cuda:N, mps; auto: a GPU if there is one
    dtype: str = "auto"  # auto, float32, tf32, bfloat16, float16: compute precision; weights stay float32
    compile: bool = False  # use `torch.compile`
    parallel: str = "auto"  # how ranks share the work: ddp, fsdp, none; auto: ddp if there are several
    activation_checkpointing: bool = False  # recompute each block in the backward pass: less memory, more time

    def __post_init__(self) -> None:
        if self.dtype not in PRECISIONS:
            raise unknown("machine.dtype", self.dtype, PRECISIONS)
        if self.parallel not in PARALLEL:
            raise unknown("machine.parallel", self.parallel, PARALLEL)


@dataclass(frozen=True)
class Runtime:
    """The device, the precision, whether to compile, the ranks of the job and how they share the work.

    `notes` holds one line for each requested setting that is unavailable or slow on this machine.
    """

    device: torch.device
    precision: str  # one of PRECISIONS, never "auto"
    compile: bool = False
    ranks: Ranks = ALONE
    parallel: str = "none"  # one of PARALLEL, never "auto"
    activation_checkpointing: bool = False
    notes: tuple[str, ...] = ()

    @property
    def product_dtype(self) -> torch.dtype:
        """The dtype of the tensors in matrix products; for tf32 float32, of which the GPU rounds copies."""
        return torch.float32 if self.precision == "tf32" else getattr(torch, self.precision)

    @property
    def block_masks(self) -> bool:
        """Whether training gives masks to FlexAttention (models/block_masks.py), as blocks of a compiled kernel.

        On a CPU it has no backward pass, and uncompiled it stores the attention pattern. torch's compiler does not
        combine it reliably with the pieces into which it cuts a model for DDP, nor with recomputed blocks.
        """
        alone = self.parallel != "ddp" and not self.activation_checkpointing
        return self.compile and self.device.type == "cuda" and alone

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which a forward pass runs in the chosen precision; weights stay float32."""
        if self.product_dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.product_dtype)

    def build_scaler(self) -> torch.amp.GradScaler:
        """Loss scaling for float16, where small gradients would underflow (Micikevicius et al. 2018); else disabled."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")

    def wrap(self, model: nn.Module, loss_function: Callable[[Any, Any], Any], *, in_parts: bool = False) -> nn.Module:
        """Moves the model to the device and returns the module to call in training: `forward(batch)` returns the loss.

        It shares the model's weights. The wrappers, from inside to outside: activation checkpointing, compilation, the
        loss, ranks. FSDP changes the parameters in place, so build the optimizer after this call. `in_parts` means that
        the loss calls `features` and `head` instead of the model itself; then each block is compiled separately.
        """
        if self.activation_checkpointing:
            checkpoint_activations(model)
        called = model
        if self.compile and (in_parts or self.parallel == "fsdp"):
            compile_blocks(model)
        if self.parallel == "fsdp":  # it moves only its own shards: the full model may not fit
            shard(model, self.device, self.ranks, gathered_in(self.precision, self.device.type))
        else:
            move(model, self.device)
            if self.device.type == "cpu" and self.parallel == "none" and not self.compile:
                add_lookups_in_place(model)
            if self.compile and not in_parts:
                called = cast(nn.Module, torch.compile(model))
        with_loss = ModelWithLoss(called, loss_function)
        return replicate(with_loss, self.device) if self.parallel == "ddp" else with_loss

    def compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The function, compiled if the model is compiled, so that operations between head and loss are fused too."""
        return torch.compile(function) if self.compile else function

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """The context for steps of a model that may be compiled: raises UserError if torch.compile itself fails.

        torch does not write its cache under another name first. So a process that is killed while it compiles can leave
        an empty file, and every later process that finds it fails.
        """
        if not self.compile:
            yield
            return
        from torch._dynamo.exc import BackendCompilerFailed
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        try:
            yield
        except BackendCompilerFailed as error:
            reason = " ".join(str(error.inner_exception).split())
            reason = reason if len(reason) <= 200 else f"{type(error.inner_exception).__name__}: …{reason[-200:]}"
            raise UserError(
                f"torch.compile failed ({reason}): a process that was killed may have left a damaged file in its cache,"
                f" so remove {cache_dir()} and try again, or train without compiling"
            ) from error

    def eagerly(self) -> contextlib.AbstractContextManager[Any]:
        """The context for validation, samples and rollouts: compiled blocks run uncompiled in it.

        Their shapes differ from those of training. Each shape would be compiled again, and after eight compilations of
        a function torch stops compiling it, for training too.
        """
        if not self.compile:
            return contextlib.nullcontext()
        stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
        return stance

    def seed_dropout(self, seed: int, step: int, micro_step: int) -> None:
        """Seeds torch from (seed, step, micro-step, rank), so that dropout does not depend on earlier computation."""
        torch.manual_seed(mix(seed, step, micro_step, self.ranks.rank))

    @property
    def peak_flops(self) -> float | None:
        """Peak matmul FLOP/s of the device at this precision; None if unknown."""
        if self.device.type != "cuda" or self.precision not in ("bfloat16", "float16"):
            return None
        return find_peak_flops(torch.cuda.get_device_name(self.device))

    def describe(self) -> str:
        """A short description: device, precision, compilation, ranks."""
        parts = [describe_device(self.device), self.precision, "compiled" if self.compile else "not compiled"]
        if self.activation_checkpointing:
            parts.append("blocks recomputed")
        if self.parallel != "none":
            parts.append(f"{self.ranks.world_size} rank{'s' * self.ranks.several} with {self.parallel}")
        return ", ".join(parts)


def build_runtime(
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
    *,
    ranks: Ranks = ALONE,
    parallel: str = "auto",
    activation_checkpointing: bool = False,
) -> Runtime:
    """Resolves the names from a config. Raises UserError for unknown, unavailable or incompatible values."""
    place = _find_device(device, ranks)
    if precision not in PRECISIONS:
        raise unknown("machine.dtype", precision, PRECISIONS)
    notes: list[str] = []
    precision = _choose_precision(precision, place, notes)
    parallel = choose_parallel(parallel, precision, ranks.world_size)
    _check_joined(parallel, place, ranks)
    if compile and (lacking := _lacks_compiler(place)):
        compile = False
        notes.append(f"{lacking}: the model runs uncompiled")
    if place.type == "cpu":
        _count_threads(ranks, notes)
    if place.type == "cuda" and ranks.store is not None:
        torch.cuda.set_device(place)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    return Runtime(place, precision, compile, ranks, parallel, activation_checkpointing, tuple(notes))


def _find_device(name: str, ranks: Ranks) -> torch.device:
    kind, _, index = name.partition(":")
    if not re.fullmatch("auto|cpu|mps|cuda(:[0-9]{1,9})?", name):
        raise unknown("device", name, ["auto", "cpu", "cuda", "cuda:0", "mps"])
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"device '{name}' is not available: torch {torch.__version__} sees no CUDA GPU; use the device 'cpu'"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not available: torch sees no Apple GPU; use the device 'cpu'")
    if index and int(index) >= torch.cuda.device_count():
        raise UserError(f"device '{name}' is not available: torch sees {torch.cuda.device_count()} CUDA GPU(s)")
    if kind == "cuda" and ranks.store is not None:
        index = _gpu_of_rank(index, ranks)
    return torch.device(f"{kind}:{index}" if index else kind)


def _gpu_of_rank(index: str, ranks: Ranks) -> str:
    """The GPU index of this rank: each rank of a node uses its own GPU."""
    if index and ranks.several:
        raise UserError(f"device 'cuda:{index}' is one GPU for {ranks.world_size} ranks: use --device cuda")
    if max(ranks.local_rank + 1, ranks.local_world_size) > (count := torch.cuda.device_count()):
        raise UserError(
            f"there are {ranks.local_world_size} ranks on a machine on which torch sees {count} CUDA GPU(s):"
            f" use --devices {count} (with torchrun: --nproc-per-node {count}), or --device cpu"
        )
    return index or str(ranks.local_rank)


def choose_parallel(name: str, precision: str, n_ranks: int) -> str:
    """Resolves "auto" for that many ranks. Raises UserError for combinations that cannot work."""
    if name not in PARALLEL:
        raise unknown("machine.parallel", name, PARALLEL)
    if name == "auto":
        name = "ddp" if n_ranks > 1 else "none"
    if name == "none" and n_ranks > 1:
        raise UserError(f"there are {n_ranks} ranks, and --parallel none is for one: use ddp or fsdp")
    if name == "fsdp" and precision == "float16":
        raise UserError("--parallel fsdp has no loss scaling for float16: use --dtype bfloat16 or float32")
    return name


def _check_joined(parallel: str, device: torch.device, ranks: Ranks) -> None:
    """Raises UserError for ddp or fsdp in one process, or on a device that ranks cannot share."""
    if parallel != "none" and ranks.store is None:
        raise UserError(
            f"--parallel {parallel} is for several devices: add their number, for example --devices 2;"
            " torchrun starts the ranks of several nodes"
        )
    if parallel != "none" and device.type == "mps":
        raise UserError("several ranks cannot share an Apple GPU: use --device cpu, or train without --devices")


def _lacks_compiler(device: torch.device) -> str | None:
    """What torch.compile needs and this machine lacks, or None."""
    if device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "no C++ compiler (g++ or clang++) is on the PATH"
    if device.type != "cuda":
        return None
    if importlib.util.find_spec("triton") is None:
        return "Triton, which torch.compile needs on a GPU, is not installed"
    # Triton builds its launcher in C against Python's headers, the first time that it runs (triton/runtime/build.py).
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "no C compiler (gcc or clang), which torch.compile needs on a GPU, is on the PATH"
    if not (headers := Path(sysconfig.get_paths()["include"])).joinpath("Python.h").exists():
        return f"Python.h (python3-dev), which torch.compile needs on a GPU, is not in {headers}"
    return None


def _count_threads(ranks: Ranks, notes: list[str]) -> None:
    """Notes when ranks use few threads: torchrun sets one thread a rank, and only the user knows the right number."""
    fair = (os.cpu_count() or 1) // ranks.local_world_size
    if ranks.local_world_size > 1 and torch.get_num_threads() < fair:
        notes.append(
            f"each rank uses {torch.get_num_threads()} of the {fair} CPU threads available to it: set"
            f" OMP_NUM_THREADS={fair} to use more"
        )


def _choose_precision(name: str, device: torch.device, notes: list[str]) -> str:
    if name == "auto":
        if device.type != "cuda":
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if name == "tf32" and device.type != "cuda":
        notes.append(f"tf32 exists on CUDA GPUs only: {device.type} runs in float32")
        return "float32"
    if name == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
        notes.append("this GPU is older than TF32 (Ampere, 2020): it runs in float32")
        return "float32"
    if name == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        notes.append("this GPU emulates bfloat16, slower than float32; float16 is fast on it")
    if name == "bfloat16" and device.type == "cpu" and not cpu_has_bfloat16():
        notes.append("this processor emulates bfloat16 products, tens of times slower than float32")
    if name == "float16" and device.type == "cpu":
        notes.append("float16 on a CPU is slow and meant for checking; float32 is faster")
    return name


@contextlib.contextmanager
def one_thread_for_small(model: nn.Module) -> Iterator[None]:
    """Uses one CPU thread for passes of few rows through a model with fewer than 10M parameters.

    Such a pass ends before a second thread wakes up, and on a busy machine the first thread waits for the second.
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


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; if not, every product is emulated."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def describe_device(device: torch.device) -> str:
    """The name of a GPU, or the number of CPU threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    n_threads = torch.get_num_threads()
    return f"cpu, {n_threads} thread{'s' * (n_threads > 1)}" if device.type == "cpu" else device.type


def describe_machine(runtime: Runtime) -> dict[str, Any]:
    """The hardware and software on which a run was made, for its record."""
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
        "world_size": runtime.ranks.world_size,
        "parallel": runtime.parallel,
    }


def _processor_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
