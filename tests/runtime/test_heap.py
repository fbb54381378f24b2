"""What glibc is told about freed memory, and what an older one is told instead."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest

from glassgpt.runtime.heap import LARGEST_BLOCK, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory


def told(monkeypatch: pytest.MonkeyPatch, most: int) -> dict[int, int]:
    """The last value of each setting that a glibc accepted which takes blocks of up to `most` bytes."""
    accepted: dict[int, int] = {}

    def mallopt(setting: int, value: int) -> int:
        if setting == M_MMAP_THRESHOLD and value > most:
            return 0
        accepted[setting] = value
        return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    return accepted


def test_blocks_of_a_gigabyte_stay_on_the_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, LARGEST_BLOCK) == {M_TRIM_THRESHOLD: 2**31 - 1, M_MMAP_THRESHOLD: 1 << 30}


def test_an_older_glibc_gets_the_most_that_it_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, 32 << 20)[M_MMAP_THRESHOLD] == 32 << 20


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    keep_freed_memory()
