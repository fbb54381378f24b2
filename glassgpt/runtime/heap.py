"""The C library's heap, from which a CPU's tensors come."""

from __future__ import annotations

import ctypes
import sys

LARGEST_BLOCK = 32 << 20  # bytes; larger blocks get a mapping of their own, and return to the system when freed


def keep_freed_memory() -> None:
    """Lets this process keep the memory that it frees, where the C library is glibc.

    A training step frees megabytes and takes them again at the next one. By default glibc hands them back to the
    system in between, and each page that comes anew costs a fault. The setting holds for the whole process, so only a
    process that is our own calls this: the command line, a measurement.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: give nothing back
        mallopt(-3, LARGEST_BLOCK)  # M_MMAP_THRESHOLD, at the largest value that glibc takes
