"""Handles SIGINT and SIGTERM, so that training finishes the step and saves before it exits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupt:
    """Inside the `with` block, the first SIGINT or SIGTERM is only recorded; a second SIGINT stops at once.

    Outside the main thread Python allows no signal handlers: nothing is caught and `signal` stays None.
    """

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        self.signal: int | None = None
        self._on_first = on_first
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # ignored, or not Python's: keep
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        first, self.signal = self.signal is None, number
        if first:
            self._on_first()
