"""Handles SIGINT, SIGTERM and SIGHUP, so that training finishes the step and saves before it exits."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from glassgpt.runtime.launch import STOP_SIGNALS


class Interrupt:
    """Inside the `with` block, the first of them is only recorded; a second SIGINT stops at once.

    Outside the main thread Python allows no signal handlers: nothing is caught and `signal` stays None.
    """

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        self.signal: int | None = None
        self._on_first = on_first
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # ignored, or not Python's: keep
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        _leave_closed_terminal()
        first, self.signal = self.signal is None, number
        if first:
            self._on_first()


def _leave_closed_terminal() -> None:
    """Sends stdout and stderr to the null device if their terminal is gone: a message would fail before the saving."""
    for handle in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(handle).st_mode) and not os.isatty(handle):
                os.dup2(os.open(os.devnull, os.O_WRONLY), handle)
