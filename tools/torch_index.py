"""Chooses where `make setup` gets torch from: prints the index with the small CPU build, or nothing.

On Linux the package registry's torch may be the CUDA build, 5 GB installed. A machine without an NVIDIA GPU needs only
the CPU build, from an index of its own. That index is used if it answers in time; else pip uses the registry alone, so
that the choice never makes the setup fail. One line on stderr says what was chosen. It uses the standard library alone,
because it runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import urllib.request
from pathlib import Path

SECONDS = 5.0  # for the whole probe
GPU_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/usr/lib/wsl/lib/nvidia-smi")


def choose(index: str, *, linux: bool, gpu: bool, seconds: float = SECONDS) -> tuple[str | None, str]:
    """The index to add for torch, or None, and the sentence about it."""
    if not index:
        return None, "torch: from the package registry, as TORCH_CPU_INDEX is empty"
    if not linux:
        return None, "torch: from the package registry, whose build for this system is small"
    if gpu:
        return None, "torch: from the package registry, because this machine has an NVIDIA GPU"
    if answers(index, seconds):
        return (
            index,
            f"torch: the CPU build from {index}, because no NVIDIA GPU was found (TORCH_CPU_INDEX= changes it)",
        )
    return None, (
        f"torch: from the package registry, because {index} gave no list of torch builds;"
        " if that is the CUDA build, it takes 5 GB"
    )


def answers(index: str, seconds: float) -> bool:
    """Whether the index lists torch within `seconds` in all.

    Socket timeouts cover neither name resolution nor a server that sends very slowly. So the request runs in a daemon
    thread, which is abandoned when the time is over.
    """
    found = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=seconds) as response:
                response.read(1)
                found.set()
        except (OSError, ValueError):  # no answer, an error status, or not a URL
            pass

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return found.is_set()


def has_nvidia_gpu() -> bool:
    """Whether the NVIDIA driver is installed."""
    return shutil.which("nvidia-smi") is not None or any(Path(file).exists() for file in GPU_FILES)


def main() -> None:
    """`torch_index.py URL`: prints the URL if pip should use it."""
    index, sentence = choose(sys.argv[1], linux=sys.platform == "linux", gpu=has_nvidia_gpu())
    print(sentence, file=sys.stderr)
    if index:
        print(index)
    sys.stdout.flush()
    os._exit(0)  # an abandoned request must not delay the exit


if __name__ == "__main__":
    main()
