"""Memory and peak FLOP/s of known devices and of this machine, used for planning a run."""

from __future__ import annotations

import os
import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from glassgpt.errors import UserError, unknown
from glassgpt.runtime.device import Runtime, build_runtime, describe_device
from glassgpt.runtime.peak_flops import PEAK_FLOPS

GIB = 2**30
RESERVE = 0.1  # fraction of a device's memory that a plan leaves free for fragmentation, validation and samples
CUDA_FLOOR = GIB // 2 + GIB // 8  # CUDA context with torch's kernels, and the cuBLAS workspace; varies by driver
CPU_FLOOR = 256 << 20  # torch's CPU build and the imports of a step; used only where it cannot be measured
CPU_KERNELS = 40 << 20  # what the first step imports, and the buffers of the first matrix products
LOCAL = ("this", "cpu")  # names of devices of this machine


@dataclass(frozen=True)
class Hardware:
    """A device: the bytes that a process can use, and the peak dense 16-bit matmul FLOP/s if known."""

    name: str
    memory: int
    peak_flops: float | None
    kind: str  # cuda, mps or cpu
    precision: str  # what dtype = "auto" resolves to
    floor: int | None = None  # bytes that the framework itself uses; None: what this process uses

    @property
    def usable(self) -> int:
        """Bytes that a plan may allocate."""
        return int(self.memory * (1 - RESERVE))


# GiB as torch reports them, slightly less than advertised; the rates come from `PEAK_FLOPS`. No V100: torch's wheels
# for CUDA 12.8 and later have no kernels for it.
_GPUS = {
    "b200": (178.0, "B200"),
    "gh200": (94.5, "GH200"),
    "h200": (139.0, "H200"),
    "h200-nvl": (139.0, "H200 NVL"),
    "h100": (79.0, "H100"),
    "h100-nvl": (93.0, "H100 NVL"),
    "h100-pcie": (79.0, "H100 PCIe"),
    "h800": (79.0, "H800"),
    "a100": (79.0, "A100"),
    "a100-40gb": (39.4, "A100"),
    "a800": (79.0, "A800"),
    "l40s": (44.4, "L40S"),
    "l4": (22.0, "L4"),
    "a40": (44.3, "A40"),
    "a10g": (22.0, "A10G"),
    "a6000": (47.4, "RTX A6000"),
    "6000-ada": (47.4, "RTX 6000 Ada Generation"),
    "5090": (31.3, "RTX 5090"),
    "4090": (23.5, "RTX 4090"),
    "3090": (23.5, "RTX 3090"),
    "t4": (14.6, "T4"),
}
_FLOAT16_ONLY = ("T4",)  # its tensor cores lack bfloat16
KNOWN = (*LOCAL, *_GPUS)


def find_hardware(name: str) -> Hardware:
    """The device with that name. Raises UserError if it is unknown, or if "this" machine cannot be measured."""
    if name in _GPUS:
        gib, word = _GPUS[name]
        precision = "float16" if word in _FLOAT16_ONLY else "bfloat16"
        return Hardware(name, int(gib * GIB), PEAK_FLOPS[word], "cuda", precision, CUDA_FLOOR)
    if name in LOCAL:
        return local_hardware(build_runtime("cpu" if name == "cpu" else "auto"))
    raise unknown("device", name, KNOWN)


def local_hardware(runtime: Runtime) -> Hardware:
    """The device of `runtime` as it is now: memory used by other programs is not counted.

    The ranks of a node share its free memory if they run on its CPU; each one has a GPU of its own.
    """
    name, kind = describe_device(runtime.device), runtime.device.type
    if kind == "cuda":
        free, _ = torch.cuda.mem_get_info(runtime.device)
        own = torch.cuda.memory_reserved(runtime.device)
        return Hardware(name, free + own, runtime.peak_flops, kind, runtime.precision, floor=0)
    if kind == "mps":
        return Hardware(name, torch.mps.recommended_max_memory(), None, kind, runtime.precision, floor=0)
    free = _free_memory() // runtime.ranks.local_world_size
    return Hardware(name, free + resident_bytes(), None, kind, runtime.precision)


def resident_bytes() -> int:
    """Resident memory of this process in bytes: the base memory use of a step on the CPU."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _free_memory() -> int:
    """Bytes that this process can still allocate, given the system and its control group (cgroup)."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
        free = int(found[1]) * 1024 if found else None
    except OSError:
        free = None
    if free is None:
        try:
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (ValueError, OSError):
            raise UserError("cannot determine how much memory this machine has: name a device with --device") from None
    return min(free, *_group_limits())


def _group_limits() -> list[int]:
    """Bytes left under the cgroup limits (v2, then v1): a container may have less memory than the machine."""
    left = [sys.maxsize]
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            bound, taken = (int((Path(folder) / file).read_text(encoding="ascii")) for file in (limit, used))
        except (OSError, ValueError):  # no such group, or "max"
            continue
        left.append(max(0, bound - taken))
    return left
