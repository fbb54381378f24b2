"""Settings of the C library's heap, which holds CPU tensors."""

from __future__ import annotations

import ctypes
import sys

LARGEST_BLOCK = 32 << 20  # bytes; a larger block is mapped separately (mmap) and returns to the system when freed


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for reuse. It does nothing with another C library.

    A training step frees megabytes and allocates them again in the next step. By default glibc returns them to the
    system in between, and every new page costs a page fault. The setting affects the entire process, so only our own
    processes call this: the command line and measurements.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: return nothing to the system
        mallopt(-3, LARGEST_BLOCK)  # M_MMAP_THRESHOLD: the largest value that glibc accepts
